"""Shared by all tests: the interpreter switch (before triton is imported) and one thread for torch."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # 0: for the tests that run kernels on a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start: beside others, two threads wait long

import torch

torch.set_num_threads(1)

from ways import either_way  # noqa: E402, F401  # for `usefixtures`
