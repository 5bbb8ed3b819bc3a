"""What every other part stands on: threads, signals, streams, and input that cannot be trusted."""
