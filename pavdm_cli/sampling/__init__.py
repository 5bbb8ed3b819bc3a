"""Schedule, noise and the denoising loop of every method; knows no model."""
