"""Training the bundled model on its procedural world."""
