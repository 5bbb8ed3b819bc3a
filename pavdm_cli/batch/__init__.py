"""Many videos at once: files of jobs, a queue in a folder that processes share, and workers that render its jobs.

No part of it knows the command line: a server or a cluster's scheduler can use the same queue and `render`.
"""
