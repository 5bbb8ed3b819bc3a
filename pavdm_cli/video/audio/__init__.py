"""Copy audio packet by packet, transcode what the container cannot hold, and append silence."""
