"""Open-Sora v1.2."""
