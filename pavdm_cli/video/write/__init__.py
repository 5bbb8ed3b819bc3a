"""Encoding and muxing: frames to a video file."""
