"""Reading video files and still images."""
