"""The models in textbook form, calling pavdm_kernels for their hot element-wise operations."""
