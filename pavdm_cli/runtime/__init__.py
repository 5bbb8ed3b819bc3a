"""The basis of all other parts: threads, signals, streams, and input that cannot be trusted."""
