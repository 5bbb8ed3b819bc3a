"""What the machine can do, measured in the same run as what it did."""

from __future__ import annotations

import time
from typing import Any

import torch

from pavdm_cli.bench.bandwidth import copy_rate
from pavdm_cli.bench.synchronize import synchronise

SIDE, SIDE_ON_CPU = 8192, 1536


def ceilings(device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Rates of a large matrix product and of a large copy, with the samples of the former."""
    samples = product_seconds(device, dtype)
    side = product_side(device)
    return {
        "matrix_tflops": 2 * side**3 / min(samples) / 1e12,
        "matrix_samples_s": [round(sample, 6) for sample in samples],
        "matrix": f"{side}^3 {str(dtype).removeprefix('torch.')}, random data, best of {len(samples)}",
        "copy_gb_s": copy_rate(device),
    }


def product_seconds(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> list[float]:
    """Durations of a large product of random matrices: zeros would run faster."""
    side, found, until = product_side(device), list[float](), time.perf_counter() + seconds
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    synchronise(device)
    while not found or time.perf_counter() < until:
        begun = time.perf_counter()
        a @ b
        synchronise(device)
        found.append(time.perf_counter() - begun)
    return found


def product_side(device: torch.device) -> int:
    """Rows and columns of the product that is timed."""
    return SIDE_ON_CPU if device.type == "cpu" else SIDE
