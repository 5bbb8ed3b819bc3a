"""The audio of a video, carried over packet by packet."""
