"""Every test of the sampler twice: its steps made one by one, and recorded on the tape and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pavdm_cli.sampling import loop as sampler
from pavdm_cli.sampling.cuda_graphs import GraphCapturer, GraphedCall
from pavdm_cli.sampling.denoiser import Denoiser
from support.exact import Exact
from support.tape import Tape


@dataclass
class Operation:
    """A denoiser's velocity as one operation, as a kernel is: recorded without being run, and run at every replay.

    So what a denoiser checks and counts in Python is checked and counted on what the recorded buffers hold.
    """

    denoiser: Denoiser
    recording: bool = True

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        assert self.recording, "a step of a kind that was not recorded"
        return velocity(window, levels, memory, id(self))


RUNNING: dict[int, Operation] = {}


@torch.library.custom_op("pavdm_tests::velocity", mutates_args=())
def velocity(window: Tensor, levels: Tensor, memory: Tensor | None, operation: int) -> Tensor:
    running = RUNNING[operation]
    return torch.empty_like(window) if running.recording else running.denoiser(window, levels, memory)


@dataclass
class Taped(GraphCapturer):
    """Graphs on the tape; its denoisers are operations."""

    backend: Tape = field(default_factory=Tape)

    def __call__(self, call: Callable[..., Tensor], warmup_inputs: Iterable[tuple[Any, ...]]) -> GraphedCall:
        assert isinstance(call, partial)
        operation = Operation(call.keywords["denoiser"])
        RUNNING[id(operation)] = operation
        replayed = GraphCapturer.__call__(self, partial(call, denoiser=operation), warmup_inputs)
        operation.recording = False
        return replayed


def unheeding(denoiser: Denoiser) -> Denoiser:
    """The same, its counts and checks aside: for the blank overlaps that recordings are made with."""
    return replace(denoiser, checks=False) if isinstance(denoiser, Exact) else deepcopy(denoiser)


@pytest.fixture(params=["eager", "replayed"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Taped | None]:
    """Sampling as a test asks for it, or with all its steps recorded, by what is given."""
    graph_capturer = Taped() if request.param == "replayed" else None
    if graph_capturer:
        warmup_inputs = sampler.warmup_inputs
        monkeypatch.setattr(
            sampler, "warmup_inputs", lambda schedule, denoiser, *a: warmup_inputs(schedule, unheeding(denoiser), *a)
        )
        for loop in (sampler.sample, sampler.denoise):
            monkeypatch.setitem(loop.__kwdefaults__, "graph_capturer", graph_capturer)
    yield graph_capturer
    RUNNING.clear()
