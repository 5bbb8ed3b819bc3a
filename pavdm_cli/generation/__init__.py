"""A request to a video file: checks, plan, pipeline, writing."""
