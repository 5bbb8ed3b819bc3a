"""What tests on a GPU need: `TRITON_INTERPRET=0 pytest tests/test_kernels_cuda.py tests/test_graphs_cuda.py`."""

import os

import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or os.environ["TRITON_INTERPRET"] != "0", reason="needs CUDA, and TRITON_INTERPRET=0"
)
