"""Hardware ceilings: matmul and copy throughput, measured in the same run as the benchmark."""

from __future__ import annotations

import time
from typing import Any

import torch

from pavdm_cli.bench.bandwidth import copy_rate
from pavdm_cli.bench.synchronize import synchronize, time_calls

SIDE, SIDE_ON_CPU = 8192, 1536


def ceilings(device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Throughput of a large matmul and of a large copy, with the samples of the matmul."""
    samples = matmul_seconds(device, dtype)
    side = matmul_side(device)
    return {
        "matrix_tflops": 2 * side**3 / min(samples) / 1e12,
        "matrix_samples_s": [round(sample, 6) for sample in samples],
        "matrix": f"{side}^3 {str(dtype).removeprefix('torch.')}, random data, best of {len(samples)}",
        "copy_gb_s": copy_rate(device),
    }


def matmul_seconds(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> list[float]:
    """Durations of a large matmul of random matrices: zeros would run faster."""
    side, durations, until = matmul_side(device), list[float](), time.perf_counter() + seconds
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    synchronize(device)
    while not durations or time.perf_counter() < until:
        durations.append(time_calls(lambda: a @ b, device))
    return durations


def matmul_side(device: torch.device) -> int:
    """Rows and columns of the matrices."""
    return SIDE_ON_CPU if device.type == "cpu" else SIDE
