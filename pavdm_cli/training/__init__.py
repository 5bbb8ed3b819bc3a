"""Training: the procedural world, the losses of paper section 3.5, the loop."""
