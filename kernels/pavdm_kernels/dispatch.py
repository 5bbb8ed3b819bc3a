"""Decides whether an operation runs its fused kernel or its reference in plain torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # what the kernels read
# Absent on macOS and in torch built for CPUs. A constant, since torch.compile cannot trace `find_spec`.
TRITON_INSTALLED = find_spec("triton") is not None


def use_kernel(x: Tensor) -> bool:
    """Whether an operation on x launches its kernel: on a GPU with Triton, in a supported dtype, without gradients."""
    return on_gpu(x) and not torch.is_grad_enabled() and x.dtype in DTYPES and TRITON_INSTALLED and kernels_enabled()


def on_gpu(x: Tensor) -> bool:
    """Whether x is on a GPU, or is a meta tensor inside `fake_cuda()`."""
    return x.is_cuda or (x.is_meta and _ProcessState.fake_cuda)


class _ProcessState:
    """State shared by all threads.

    Code that torch.compile traces reads `reference_depth` here: it cannot trace a ContextVar, and it sets no guard on a
    thread-local value, so one graph would be used with and without kernels.
    """

    reference_depth = 0  # how many `use_reference()` blocks are open in any thread
    fake_cuda = False


class _ThreadState(threading.local):
    reference_depth = 0  # those of this thread: decoding in another thread is not affected


_THREAD = _ThreadState()


@contextmanager
def use_reference() -> Iterator[None]:
    """Inside the block, every operation of this thread runs its reference in plain torch."""
    _ProcessState.reference_depth += 1
    _THREAD.reference_depth += 1
    try:
        yield
    finally:
        _ProcessState.reference_depth -= 1
        _THREAD.reference_depth -= 1


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside the block, meta tensors take the kernels' path, which allocates the outputs and computes nothing."""
    before, _ProcessState.fake_cuda = _ProcessState.fake_cuda, True
    try:
        yield
    finally:
        _ProcessState.fake_cuda = before


def kernels_enabled() -> bool:
    """Whether fused forms may be used: no `use_reference()` block is open."""
    return (_ProcessState.reference_depth if torch.compiler.is_compiling() else _THREAD.reference_depth) == 0
