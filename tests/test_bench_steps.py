"""Step times exclude construction before the first step, and graph capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from support.requests import make_request
from support.tape import Tape
from test_bench_released import SMALL
from torch import Tensor

from pavdm_cli.bench import steps, throughput
from pavdm_cli.bench.throughput import open_architecture
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.denoiser import Denoiser

CPU = torch.device("cpu")
Made = tuple[GenerationConfig, ModelRunner, steps.SamplingInputs]


@dataclass
class Clock:
    """Goes on only where it is told to."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of steps and of recording."""
    fake_clock = Clock()
    monkeypatch.setattr("pavdm_cli.bench.steps.time", fake_clock)
    monkeypatch.setattr("pavdm_cli.sampling.cuda_graphs.time", fake_clock)
    return fake_clock


@dataclass
class Built:
    """A denoiser as a compiler leaves it: a second a step, a hundred more for the first of every size."""

    clock: Clock
    inner: Denoiser
    met: set[Any] = field(default_factory=set)

    def prefill(self, overlap: Tensor, level: int, /) -> Any:
        return self.inner.prefill(overlap, level)

    def __call__(self, window: Tensor, levels: Tensor, memory: Any, /) -> Tensor:
        kind = (window.shape[1], memory is None)
        self.clock.now += 1 if kind in self.met else 101
        self.met.add(kind)
        return torch.zeros_like(window)


@dataclass
class Recording(Tape):
    """Takes ten seconds a recording, and one for a replay."""

    clock: Clock = field(default_factory=Clock)

    def capture(self, call: Callable[[], Tensor], /) -> tuple[Tensor, Callable[[], object]]:
        out = call()
        self.clock.now += 10
        self.lengths.append(0)
        return out, self.replayed

    def replayed(self) -> None:
        self.clock.now += 1


class Still:
    """A denoiser that takes no time."""

    def prefill(self, overlap: Tensor, level: int, /) -> Tensor:
        return overlap

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        return torch.zeros_like(window)


def made(denoiser: Callable[[Denoiser], Denoiser], graph_capturer: GraphCapturer | None = None) -> Made:
    """A long enough video of a small network, whose denoiser is another."""
    request = make_request("a", seconds=8, model="opensora-v1.2", threads=1)
    job, model = open_architecture(request, SMALL)
    ready = steps.prepare_sampling(job, model)
    return job, model, replace(ready, denoiser=denoiser(ready.denoiser), graph_capturer=graph_capturer)


def test_nothing_is_built_in_a_step_that_is_timed(clock: Clock) -> None:
    timed = steps.time_all_steps(*made(lambda inner: Built(clock, inner)))
    assert {step.phase for step in timed} == set(steps.PHASES)
    assert {step.seconds for step in timed} == {1}


def test_a_video_of_random_weights_finds_every_size_built(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    job, model, ready = made(lambda inner: Built(clock, inner))
    monkeypatch.setattr(throughput, "ceilings", lambda device, dtype: {"matrix_tflops": 1.0})
    monkeypatch.setattr(throughput, "open_architecture", lambda *_, **__: (job, model))
    monkeypatch.setattr(steps, "prepare_sampling", lambda job, model: ready)
    calls = []

    def video(*_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        denoiser = ready.denoiser
        assert isinstance(denoiser, Built)
        calls.extend(denoiser.met)
        return {}, {}

    monkeypatch.setattr(throughput, "whole_video", video)
    throughput.architecture_throughput(make_request("a", seconds=1), SMALL, 2, lambda frames: None)
    assert len(calls) == 2 * job.schedule.capacity  # growth without an overlap, then full and ever shorter with one


def test_growth_is_timed_without_recording_which_is_told_apart(clock: Clock) -> None:
    graph_capturer = GraphCapturer(Recording(clock=clock))
    job, model, ready = made(lambda inner: Still(), graph_capturer)
    timed = steps.time_all_steps(job, model, ready)
    assert {step.seconds for step in timed} == {1}
    assert throughput.graphs(ready) == {
        "graphs": graph_capturer.count,
        "capture_s": 10 * graph_capturer.count,
        "graph_memory_mb": graph_capturer.bytes / 2**20,
    }
    assert graph_capturer.count > 10
