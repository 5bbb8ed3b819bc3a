"""The hot element-wise operations of a video diffusion transformer: a plain-torch reference each, and a Triton kernel."""
