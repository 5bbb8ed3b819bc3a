"""Weights on disk and on the hub: download, verify, convert, read."""
