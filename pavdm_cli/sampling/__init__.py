"""Schedules, noise and the denoising loop, independent of any model."""
