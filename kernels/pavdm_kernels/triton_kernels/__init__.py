"""The Triton kernels. Each module is imported only to launch or compile its kernel: a run on a CPU needs no Triton."""
