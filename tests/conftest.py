"""Shared by all tests: the interpreter switch (before triton is imported) and one thread for torch."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

torch.set_num_threads(1)
