"""Read video files and still images: probe, decode, orient and convert to RGB."""
