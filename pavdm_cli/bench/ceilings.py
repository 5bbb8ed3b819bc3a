"""What the machine can do, measured in the same run as what it did."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from pavdm_kernels import references


def matrix_rate(device: torch.device, seconds: float = 1.0) -> float:
    """The rate of a large float32 matrix product on random data, in TFLOP/s: the best of several."""
    side = 1536 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    a @ b
    while time.perf_counter() < until:
        begun = time.perf_counter()
        a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e12


def work(call: Callable[[], object]) -> float:
    """The floating point operations of a call, in TFLOP, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton where there is one

    with references(), FlopCounterMode(display=False) as counter:  # it does not know what a fused operation does
        call()
    return float(counter.get_total_flops()) / 1e12


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that a clock read after it is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
