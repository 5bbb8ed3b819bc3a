"""Exact float32 convolutions: torch runs cuDNN's in TF32 by default, with a mantissa of 10 bits instead of 23."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class ConvPrecision:
    """torch's process-wide switch: the number of blocks that need it, and its value before the first of them."""

    lock = Lock()
    blocks = 0
    before = ""


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Inside the block, and in other threads meanwhile, a GPU convolves in full float32; restored afterwards."""
    _change_depth(1)
    try:
        yield
    finally:
        _change_depth(-1)


def _change_depth(change: int) -> None:
    switch = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # set when torch is imported
    with ConvPrecision.lock:
        if not ConvPrecision.blocks:
            ConvPrecision.before = switch.fp32_precision
        ConvPrecision.blocks += change
        precision = "ieee" if ConvPrecision.blocks else ConvPrecision.before
        if switch.fp32_precision != precision:
            switch.fp32_precision = precision
