"""Numerical error and memory bandwidth of every operation, compared with a copy on the same device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pavdm_cli.bench.synchronize import synchronize
from pavdm_kernels.op import Op, RandomInputs, Sizes

ROTATED = 2**28  # bytes of different inputs before the first is used again, more than any cache holds
SAMPLES = 20
SAMPLE = 0.01  # seconds on a GPU, compared with which the 20 us of a launch are negligible


class Measured(NamedTuple):
    """Measurements of one operation at one size."""

    seconds: list[float]  # per call, one number per round
    error: float  # largest, as a share of the largest value
    bytes: int  # that a call must move

    @property
    def gb_s(self) -> float:
        """Memory bandwidth in GB/s."""
        return self.bytes / median(self.seconds) / 1e9


def measure(op: Op, sizes: Sizes, dtype: torch.dtype, device: torch.device, rotated: int = ROTATED) -> Measured:
    """Time calls on different inputs and outputs that take `rotated` bytes in total."""
    moved = op.bytes_moved(sizes, dtype)
    inputs = [op.make_inputs(sizes, RandomInputs(dtype, str(device), seed)) for seed in range(1 + rotated // moved)]
    with torch.no_grad():
        calls = [partial(op.function, *arguments) for arguments in inputs]
        return Measured(seconds_per_call(calls, device), error(op, inputs[0]), moved)


def error(op: Op, arguments: tuple[Any, ...]) -> float:
    """Largest error against the reference in float64, as a share of the largest value."""
    outputs, expected = (
        tree_leaves(out) for out in (op.function(*arguments), op.reference(*tree_map(widen, arguments)))
    )
    pairs = zip(outputs, expected, strict=True)
    return max(float((x.double() - exact).abs().max() / exact.abs().max()) for x, exact in pairs)


def widen(value: Any) -> Any:
    """The same value in float64, if it is a floating-point tensor."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def copy_rate(device: torch.device, size: int = ROTATED) -> float:
    """Bytes read and written per second by a large copy, in GB."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / median(seconds_per_call([lambda: target.copy_(source)], device)) / 1e9


def seconds_per_call(calls: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds per call, one number per sample; on a GPU without launch overhead."""
    run_all = round_of(calls, device)
    rounds = 1 if device.type == "cpu" else math.ceil(SAMPLE / spent(run_all, 1, device))
    return [spent(run_all, rounds, device) / (rounds * len(calls)) for _ in range(SAMPLES)]


def spent(run_all: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Seconds of `rounds` rounds."""
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        run_all()
    synchronize(device)
    return time.perf_counter() - begun


def round_of(calls: Sequence[Callable[[], object]], device: torch.device) -> Callable[[], object]:
    """A function that runs all calls, as one CUDA graph on a GPU; each has run once before.

    Results are kept until the last call, so that each is written to other memory, beyond what a cache holds.
    """
    for call in calls:
        call()
    if device.type != "cuda":
        return lambda: [call() for call in calls]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call() for call in calls]
    del results  # their memory belongs to the graph
    return graph.replay
