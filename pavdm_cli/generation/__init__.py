"""From a request to a video file: checks, memory plan, pipeline, writing."""
