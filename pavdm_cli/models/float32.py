"""Convolutions of float32 in float32: torch leaves cuDNN's to TF32, which keeps 10 bits of 23."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class Held:
    """Torch has one switch for all threads: how many blocks hold it, and how it was before the first."""

    lock = Lock()
    blocks = 0
    before = ""


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Inside the block, and beside it in other threads, a GPU convolves float32 exactly; after it, as before."""
    _hold(1)
    try:
        yield
    finally:
        _hold(-1)


def _hold(change: int) -> None:
    switch = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made at import
    with Held.lock:
        if not Held.blocks:
            Held.before = switch.fp32_precision
        Held.blocks += change
        wanted = "ieee" if Held.blocks else Held.before
        if switch.fp32_precision != wanted:
            switch.fp32_precision = wanted
