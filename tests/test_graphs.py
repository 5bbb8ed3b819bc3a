"""Captured and replayed steps, on a CPU stand-in for CUDA graphs: bit-identical states, no stale inputs."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from support.exact import NOISE, SCHEDULES, Mixing, build_solver, clean_latents, every_method, sigmas_of
from support.tape import CaptureError, Tape, waits
from torch import Tensor

from pavdm_cli.sampling.cuda_graphs import GraphCapturer, StaticBuffer, capture_call
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.loop import SamplerState, denoise, shift_latents, state_from_clip, state_from_renoised_clip
from pavdm_cli.sampling.schedule import Schedule, pa, rw


def taped(max_latents: float = float("inf")) -> GraphCapturer:
    return GraphCapturer(Tape(), max_latents)


def starts(schedule: Schedule) -> dict[str, SamplerState | None]:
    """Nothing, a clip, and a clip whose end is noised again."""
    clip, sigmas = clean_latents(range(-9, 0)), sigmas_of(schedule)
    return {
        "nothing": None,
        "clip": state_from_clip(schedule, clip, sigmas),
        "noised": state_from_renoised_clip(schedule, clip, NOISE, sigmas),
    }


def states(
    schedule: Schedule, denoiser: Denoiser, graph_capturer: GraphCapturer | None, **options: Any
) -> list[SamplerState]:
    """All of them, kept until the last step is done."""
    chunks = schedule.capacity + 3
    return list(
        denoise(
            schedule,
            denoiser,
            NOISE,
            build_solver(sigmas_of(schedule)),
            chunks=chunks,
            graph_capturer=graph_capturer,
            **options,
        )
    )


def assert_same(eager: list[SamplerState], replayed: list[SamplerState]) -> None:
    assert len(eager) == len(replayed)
    for left, right in zip(eager, replayed, strict=True):
        assert (left.now, left.chunks) == (right.now, right.chunks)
        assert torch.equal(left.window, right.window)
        assert torch.equal(left.context, right.context)


def assert_replayed_is_eager(
    schedule: Schedule, kind: type[Mixing], graph_capturer: GraphCapturer | None = None
) -> None:
    assert_same(states(schedule, kind(), None), states(schedule, kind(), graph_capturer or taped()))


@every_method
@pytest.mark.parametrize("start", ["nothing", "clip", "noised"])
def test_a_replayed_video_is_the_eager_one_in_every_state(schedule: Schedule, start: str) -> None:
    graph_capturer, initial_state, replayed = taped(), starts(schedule)[start], Mixing()
    eager = states(schedule, Mixing(), None, start=initial_state)
    assert_same(eager, states(schedule, replayed, graph_capturer, start=initial_state))
    assert graph_capturer.backend.replays == len(eager)
    assert replayed.calls == 2 * graph_capturer.count  # once to warm up, once to be recorded


@every_method
@pytest.mark.parametrize("start", ["nothing", "clip", "noised"])
@pytest.mark.parametrize("chunks", [0, 1, 2, 9, None])
def test_there_is_one_graph_for_every_size_of_window_and_overlap(schedule: Schedule, start: str, chunks: int) -> None:
    sizes: set[tuple[int, int]] = set()

    def prefill(overlap: Tensor, level: int) -> Tensor:
        return overlap

    def velocity(window: Tensor, levels: Tensor, memory: Tensor | None) -> Tensor:
        sizes.add((window.shape[1], 0 if memory is None else memory.shape[1]))
        return window

    initial_state, graph_capturer, sigmas = starts(schedule)[start], taped(), sigmas_of(schedule)
    steps = denoise(
        schedule, FunctionDenoiser(prefill, velocity), NOISE, build_solver(sigmas), chunks=chunks, start=initial_state
    )
    list(islice(steps, 6 * schedule.steps))
    recorded = denoise(
        schedule,
        FunctionDenoiser(prefill, velocity),
        NOISE,
        build_solver(sigmas),
        chunks=chunks,
        start=initial_state,
        graph_capturer=graph_capturer,
    )
    next(recorded, None)
    assert graph_capturer.count == len(sizes)


def test_the_paper_s_setting_takes_twelve_graphs_from_text_and_seven_from_a_clip_to_a_video_without_end() -> None:
    schedule = pa(30, 30, 5)
    assert len(schedule.sizes(0, 0, 0, None)) == 7
    assert len(schedule.sizes(0, 0, 5, None)) == 6
    assert len(schedule.sizes(0, 0, 0, 20)) == 12
    assert schedule.sizes(0, 0, 0, 20) == schedule.sizes(0, 0, 0, 20_000)


def test_the_largest_window_is_recorded_first() -> None:
    sizes: list[int] = []

    class Sized(Mixing):
        def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
            sizes.append(window.shape[1])
            return super().__call__(window, levels, memory)

    states(pa(6, 6, 2), Sized(), taped())
    assert sizes == [6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2]


def test_steps_beyond_the_limit_are_made_as_before() -> None:
    schedule, graph_capturer, denoiser = pa(6, 6, 2), taped(max_latents=6), Mixing()
    assert_same(states(schedule, Mixing(), None), states(schedule, denoiser, graph_capturer))
    assert graph_capturer.count == 5  # all but the full window with an overlap
    assert denoiser.calls > 2 * graph_capturer.count


def test_a_saved_state_of_a_replayed_video_continues_to_the_same_end() -> None:
    schedule = pa(6, 6, 2)
    eager = states(schedule, Mixing(), None)
    for state in states(schedule, Mixing(), taped()):
        rest = states(schedule, Mixing(), taped(), start=state)
        assert not rest or torch.equal(rest[-1].window, eager[-1].window)


# Mistakes that a recording makes fatal.


class FrozenStepSize(Mixing):
    """A number that Python knows, and a graph keeps as it was."""

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        return super().__call__(window, levels, memory) / self.calls


class PythonRing(Mixing):
    """A place in a ring that Python counts."""

    ring: Tensor | None = None

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        velocity = super().__call__(window, levels, memory)
        self.ring = torch.zeros(3, dtype=window.dtype) if self.ring is None else self.ring
        self.ring[self.calls % 3] = window.mean()
        return velocity + self.ring[0]


class Rebound(Mixing):
    """Keeps the last mean under a name, not in a buffer."""

    kept: Any = 0

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        velocity = super().__call__(window, levels, memory) + self.kept
        self.kept = window.mean()
        return velocity


@pytest.mark.parametrize("mistake", [FrozenStepSize, PythonRing, Rebound])
@pytest.mark.parametrize("name", ["pa", "rn", "rw", "fifo"])
def test_what_python_counts_or_rebinds_shows(mistake: type[Mixing], name: str) -> None:
    with pytest.raises(AssertionError):
        assert_replayed_is_eager(SCHEDULES[name], mistake)


READINGS = {
    "item": lambda x: x.max().item(),
    "truth": lambda x: 1 if x.max() > 3 else 0,
    "tolist": lambda x: x.tolist()[0],
    "cpu": lambda x: x.cpu().sum(),
    "to": lambda x: x.to("cpu").sum(),
    "numpy": lambda x: x.numpy().max(),
    "nonzero": lambda x: x.nonzero().sum(),
    "mask": lambda x: x[x > 3].sum(),
    "where": lambda x: torch.where(x > 3)[0].sum(),
    "new tensor": lambda x: torch.tensor([1.0], device=x.device),
    "new like": lambda x: x.new_tensor(1.0),
    "random": lambda x: torch.rand(1),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
def test_what_waits_for_the_device_is_counted_and_rejected(reading: Any) -> None:
    class Reading(Mixing):
        def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
            return super().__call__(window, levels, memory) + 0 * reading(levels)

    window, levels = clean_latents(range(2)), torch.tensor([1, 4], dtype=torch.int32)
    assert waits(lambda: Reading()(window, levels, None))
    assert not waits(lambda: Mixing()(window, levels, None))
    with pytest.raises(CaptureError):
        states(pa(6, 6, 2), Reading(), taped())


# The wrapper itself.


def test_a_buffer_filled_too_late_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    fill, sources = StaticBuffer.fill, dict[int, Tensor]()

    def late(self: StaticBuffer, source: Tensor) -> None:
        fill(self, sources.get(id(self), source))
        sources[id(self)] = source

    monkeypatch.setattr(StaticBuffer, "fill", late)
    with pytest.raises(AssertionError):
        assert_replayed_is_eager(rw(4, 5, 2), Mixing)


def test_a_state_that_is_the_graph_s_own_output_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "clone", lambda tensor: tensor)
    with pytest.raises(AssertionError):
        assert_replayed_is_eager(pa(6, 6, 2), Mixing)


def test_a_shift_is_replayed_through_the_same_wrapper() -> None:
    window, noise = clean_latents(range(6)), clean_latents(range(2))
    warmup_inputs = [(window, noise, 2), (window, noise[:, :0], 2), (window, noise, 0)]
    replayed = capture_call(shift_latents, Tape(), warmup_inputs)
    for latents in (window, 2 * window):
        for _, entering, leaving in warmup_inputs:
            assert torch.equal(replayed(latents, entering, leaving), shift_latents(latents, entering, leaving))
    assert len(replayed.captures) == 3


def test_a_tensor_changed_in_place_is_handed_over_again() -> None:
    factor = torch.ones(3)
    double = capture_call(lambda x: 2 * x, Tape(), [(factor,)])
    assert double(factor).tolist() == [2, 2, 2]
    factor += 1
    assert double(factor).tolist() == [4, 4, 4]
