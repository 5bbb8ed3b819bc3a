"""`pavdm serve`: a web page and an HTTP API over one worker that renders videos, which can be watched and steered.

Needs the packages of the extra `serve`; no other part of the program imports it.
"""
