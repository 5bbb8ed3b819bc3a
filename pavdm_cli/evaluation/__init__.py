"""Evaluate generated videos: metrics, a probe for the bundled model, and the bars it must pass."""
