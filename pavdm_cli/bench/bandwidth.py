"""How far every operation is from its reference on a device, and from the rate at which that device copies memory."""

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

from pavdm_cli.bench.synchronize import synchronise
from pavdm_kernels.op import Op, RandomInputs, Sizes

ROTATED = 2**28  # bytes gone through before the same memory is read again, so that no cache holds it
SAMPLES = 20
SAMPLE = 0.01  # seconds on a GPU: beside them the some 20 us of a launch that is waited for are nothing


class Measured(NamedTuple):
    """One operation at one size."""

    seconds: list[float]  # a call, one number a round
    error: float  # largest, as a share of the largest value
    bytes: int  # that a call must move

    @property
    def gb_s(self) -> float:
        """GB moved a second."""
        return self.bytes / median(self.seconds) / 1e9


def measure(op: Op, sizes: Sizes, dtype: torch.dtype, device: torch.device, rotated: int = ROTATED) -> Measured:
    """Time calls on so many inputs, and into so many outputs, that together they take `rotated` bytes."""
    moved = op.bytes_moved(sizes, dtype)
    inputs = [op.make_inputs(sizes, RandomInputs(dtype, str(device), seed)) for seed in range(1 + rotated // moved)]
    with torch.no_grad():
        found = error(op, inputs[0])
        return Measured(each([partial(op.function, *given) for given in inputs], device), found, moved)


def error(op: Op, arguments: tuple[Any, ...]) -> float:
    """Of what models call, against the reference in float64."""
    got, want = (tree_leaves(out) for out in (op.function(*arguments), op.reference(*tree_map(widen, arguments))))
    pairs = zip(got, want, strict=True)
    return max(float((x.double() - exact).abs().max() / exact.abs().max()) for x, exact in pairs)


def widen(value: Any) -> Any:
    """The same numbers in float64."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def copy_rate(device: torch.device, size: int = ROTATED) -> float:
    """Bytes read and written a second by a large copy, in GB."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / median(each([lambda: target.copy_(source)], device)) / 1e9


def each(calls: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds a call takes, one number a sample; on a GPU without the time of launching, and of waiting for it."""
    again = round_of(calls, device)
    rounds = 1 if device.type == "cpu" else math.ceil(SAMPLE / spent(again, 1, device))
    return [spent(again, rounds, device) / (rounds * len(calls)) for _ in range(SAMPLES)]


def spent(again: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Seconds of so many rounds one after another."""
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        again()
    synchronise(device)
    return time.perf_counter() - begun


def round_of(calls: Sequence[Callable[[], object]], device: torch.device) -> Callable[[], object]:
    """All calls one after another, as one CUDA graph where there can be one; each has run once before.

    No result is dropped before the last call, so that each is written elsewhere: no cache then holds where.
    """
    for call in calls:
        call()
    if device.type != "cuda":
        return lambda: [call() for call in calls]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]
    del kept  # their memory stays the graph's own
    return graph.replay
