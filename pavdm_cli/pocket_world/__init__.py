"""The procedural world of the bundled model, and its captions."""
