"""pavdm: long videos by progressive autoregressive video diffusion, as a command line."""

__version__ = "0.1.0"
