"""Training: batches, noise levels and losses (paper section 3.5), the loop, and the tasks of each model."""
