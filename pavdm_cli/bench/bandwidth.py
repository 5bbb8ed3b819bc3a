"""Numerical error and memory bandwidth of every operation, compared with a copy on the same device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pavdm_cli.bench.synchronize import time_calls
from pavdm_kernels.op import Op, RandomInputs, Sizes

WORKING_SET = 2**28  # bytes of different inputs before the first is used again, more than any cache holds
SAMPLES = 20
SAMPLE = 0.01  # seconds on a GPU, compared with which the 20 us of a launch are negligible


class OpMeasurement(NamedTuple):
    """Measurements of one operation at one size."""

    seconds: list[float]  # per call, one number per round
    error: float  # largest, as a share of the largest value
    bytes: int  # that a call must move

    @property
    def gb_s(self) -> float:
        """Memory bandwidth in GB/s."""
        return self.bytes / median(self.seconds) / 1e9


def measure(
    op: Op, sizes: Sizes, dtype: torch.dtype, device: torch.device, working_set: int = WORKING_SET
) -> OpMeasurement:
    """Time calls on different inputs and outputs that take `working_set` bytes in total."""
    byte_count = op.bytes_moved(sizes, dtype)
    inputs = [
        op.make_inputs(sizes, RandomInputs(dtype, str(device), seed)) for seed in range(1 + working_set // byte_count)
    ]
    with torch.no_grad():
        calls = [partial(op.function, *arguments) for arguments in inputs]
        return OpMeasurement(seconds_per_call(calls, device), error(op, inputs[0]), byte_count)


def error(op: Op, arguments: tuple[Any, ...]) -> float:
    """Largest error against the reference in float64, as a share of the largest value."""
    outputs, exact_outputs = (
        tree_leaves(out) for out in (op.function(*arguments), op.reference(*tree_map(widen, arguments)))
    )
    pairs = zip(outputs, exact_outputs, strict=True)
    return max(float((x.double() - exact).abs().max() / exact.abs().max()) for x, exact in pairs)


def widen(value: Any) -> Any:
    """The same value in float64, if it is a floating-point tensor."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def copy_rate(device: torch.device, size: int = WORKING_SET) -> float:
    """Bytes read and written per second by a large copy, in GB."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / median(seconds_per_call([lambda: target.copy_(source)], device)) / 1e9


def seconds_per_call(calls: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds per call, one number per sample; on a GPU without launch overhead."""
    run_all = round_of(calls, device)
    rounds = 1 if device.type == "cpu" else math.ceil(SAMPLE / time_calls(run_all, device))
    return [time_calls(run_all, device, rounds) / (rounds * len(calls)) for _ in range(SAMPLES)]


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
