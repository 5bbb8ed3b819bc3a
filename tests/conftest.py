"""Shared by all tests: the interpreter switch (before triton is imported) and one thread for torch."""

import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start: beside others, two threads wait long

import torch

torch.set_num_threads(1)
