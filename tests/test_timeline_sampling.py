"""A text that changes while the window moves: at which step, without earlier effects, and in captured steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.exact import NOISE, SCHEDULES, Mixing, build_solver, clean_latents, every_method, sigmas_of
from support.tape import Tape
from torch import Tensor

from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.denoiser import AnyDenoiser, Denoiser, FunctionDenoiser, TimelineDenoiser
from pavdm_cli.sampling.loop import SamplerState, denoise, state_from_clip
from pavdm_cli.sampling.masked_clips import ClipCondition, sample_masked_clips
from pavdm_cli.sampling.schedule import Schedule, pa, rn

FIRST, SECOND, LONGER = torch.ones(3), torch.arange(3.0), torch.arange(5.0)
MIXING = Mixing()


def prefill(context: Tensor, level: int, text: Tensor) -> Tensor:
    return MIXING.prefill(context, level) + text.square().mean()


def velocity(window: Tensor, levels: Tensor, cache: Tensor | None, text: Tensor) -> Tensor:
    return MIXING(window, levels, cache) + text.square().mean() * window


def bind(text: Tensor) -> Denoiser:
    return FunctionDenoiser(partial(prefill, text=text), partial(velocity, text=text))


def switching(at: int, second: Tensor = SECOND) -> TimelineDenoiser:
    """The second text from a chunk on."""
    return TimelineDenoiser(bind, lambda newest: FIRST if newest < at else second)


def states(
    schedule: Schedule, denoiser: AnyDenoiser, graph_capturer: GraphCapturer | None = None, **rest: SamplerState
):
    solver, chunks = build_solver(sigmas_of(schedule)), schedule.capacity + 4
    return list(denoise(schedule, denoiser, NOISE, solver, chunks=chunks, graph_capturer=graph_capturer, **rest))


def assert_same(states: list[SamplerState], other: list[SamplerState]) -> None:
    assert len(states) == len(other)
    assert all(torch.equal(a.window, b.window) for a, b in zip(states, other, strict=True))


@every_method
@pytest.mark.parametrize("graph_capturer", [False, True])
def test_a_text_that_never_changes_is_that_of_a_bound_denoiser(schedule: Schedule, graph_capturer: bool) -> None:
    bound = states(schedule, bind(FIRST))
    assert_same(bound, states(schedule, switching(100), GraphCapturer(Tape()) if graph_capturer else None))
    again = TimelineDenoiser(bind, lambda newest: (FIRST.clone(), FIRST)[newest < 2])  # equal, but another tensor
    assert_same(bound, states(schedule, again))


@every_method
@pytest.mark.parametrize("at", [1, 3])
def test_nothing_before_the_step_of_the_change_differs_and_that_step_does(schedule: Schedule, at: int) -> None:
    plain, changed = states(schedule, bind(FIRST)), states(schedule, switching(at))
    entry = schedule.entry_step(at)  # the step before which the chunk is pure noise
    same = [torch.equal(a.window, b.window) for a, b in zip(plain, changed, strict=True)]
    assert same == [True] * entry + [False] * (len(same) - entry)


@every_method
@pytest.mark.parametrize("second", [SECOND, LONGER], ids=["as long", "longer"])
def test_a_change_in_captured_steps_is_the_eager_one(schedule: Schedule, second: Tensor) -> None:
    graph_capturer = GraphCapturer(Tape())
    eager = states(schedule, switching(2, second))
    assert_same(eager, states(schedule, switching(2, second), graph_capturer))
    assert graph_capturer.backend.replays == len(eager)
    assert graph_capturer.bytes == graph_capturer.backend.bytes + graph_capturer.buffer_bytes


def test_a_text_of_the_same_shape_is_replayed_by_the_same_graphs() -> None:
    schedule = pa(6, 6, 2)
    counts = []
    for denoiser in (switching(100), switching(2), switching(2, LONGER)):
        graph_capturer = GraphCapturer(Tape())
        states(schedule, denoiser, graph_capturer)
        counts.append(graph_capturer.count)
    assert counts[0] == counts[1] < counts[2] < 2 * counts[0]  # sizes of the ramp-up are not captured again


def test_a_context_is_prefilled_again_where_only_the_text_changes() -> None:
    """After a given clip the window grows without moving the context."""
    schedule, calls = pa(6, 6, 2), list[tuple[float, Tensor]]()

    def seeing(text: Tensor) -> Denoiser:
        def prefill(context: Tensor, level: int) -> Tensor:
            calls.append((float(text.square().sum()), context))
            return context.mean(dim=1, keepdim=True)

        return replace(bind(text), prefill=prefill)

    start = state_from_clip(schedule, clean_latents(range(-2, 0)), sigmas_of(schedule))
    states(schedule, TimelineDenoiser(seeing, switching(1).text), start=start)
    assert calls[0][0] != calls[1][0]
    assert calls[0][1] is calls[1][1]
    assert len(calls) == 1 + schedule.capacity + 4


@every_method
def test_sampling_continued_from_a_state_after_a_change_is_the_same(schedule: Schedule) -> None:
    whole = states(schedule, switching(2))
    for number in range(schedule.entry_step(2), len(whole), 3):
        assert_same(whole[number + 1 :], states(schedule, switching(2), start=whole[number]))


def test_clips_with_an_edit_ratio_change_at_a_clip() -> None:
    schedule, solver = rn(4, 5, 2), build_solver(sigmas_of(rn(4, 5, 2)))
    condition = ClipCondition(0.4, lambda context: context)

    def clips(denoiser: AnyDenoiser) -> list[Tensor]:
        run = sample_masked_clips(schedule, denoiser, NOISE, solver, chunks=4, condition=condition)
        return [clip.latents for clip in run]

    same = [torch.equal(*pair) for pair in zip(clips(bind(FIRST)), clips(switching(2)), strict=True)]
    assert same == [True, True, False, False]


def test_the_newest_chunk_is_the_last_that_has_entered() -> None:
    for schedule in SCHEDULES.values():
        for now in range(schedule.total_steps(6)):
            window = schedule.active_chunks(now, 0, 6)
            newest = schedule.newest(window, now)
            assert schedule.entry_step(newest) <= now
            assert newest == window[-1] or schedule.entry_step(newest + 1) > now
