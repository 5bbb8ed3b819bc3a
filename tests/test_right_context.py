"""Clean latents after the window: what the denoiser gets of them and when, and that they never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from support.exact import (
    NOISE,
    Exact,
    Mixing,
    assert_same,
    build_solver,
    clean_latents,
    joined,
    sigmas_of,
)
from support.ways import Taped
from torch import Tensor

from pavdm_cli.sampling import loop
from pavdm_cli.sampling.loop import SamplerState, denoise, empty_state, sample, state_from_clip
from pavdm_cli.sampling.noise import noise_levels
from pavdm_cli.sampling.right_context import grow_right_context, with_right_context
from pavdm_cli.sampling.schedule import Schedule, pa
from pavdm_cli.sampling.unipc import unipc

pytestmark = pytest.mark.usefixtures("either_way")

SCHEDULES = {
    "pa": pa(6, 12, 2),
    "pa-long-stride": pa(12, 8, 2),
    "pa-chunk-1": pa(4, 4, 1),
    "pa-first-chunk": replace(pa(8, 12, 3), first_chunk=1),
    "odd-stride": Schedule(steps=7, stride=3, chunk=2, context=3),
    "pa-clean-latents-fill-the-window": replace(pa(6, 12, 2, context=False), fill_to=12),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@dataclass
class ExactBefore(Exact):
    """Knows, from the definition alone, which chunks are shown in front of the latents `after` the last chunk."""

    after: range = range(0)  # latents of the one true video
    joining: bool = field(default=False, init=False)

    def active_chunks(self) -> list[tuple[int, int]]:
        steps, stride, join = self.schedule.steps, self.schedule.stride, self.schedule.right_context_from
        assert join is not None
        ages = [(index, self.now - (index - self.first) * stride) for index in range(self.first, self.chunks)]
        ages = [(index, age) for index, age in ages if age < steps]
        self.joining = ages[0][0] >= join
        return [(index, min(steps - age, steps + 1)) for index, age in ages if age >= 0 or self.joining]

    def context(self) -> range:
        first, indices = self.start_of(self.first), [index for index, _ in self.active_chunks()]
        end = self.start_of(indices[0])
        seen = self.start_of(indices[-1] + 1) - end + len(self.after) * self.joining
        length = max(self.schedule.context, self.schedule.fill_to - seen)
        return range(max(first - self.given, end - length), end)

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        self.active_chunks()
        count = window.shape[1] - len(self.after) * self.joining
        assert_same(window[:, count:], clean_latents(self.after if self.joining else range(0)))
        assert levels[count:].tolist() == [0] * (window.shape[1] - count)
        velocity = super().__call__(window[:, :count], levels[:count], cache)
        return torch.cat([velocity, torch.full_like(window[:, count:], 1e6)], dim=1)  # what nobody may use


def run(schedule: Schedule, first: int, chunks: int, right: int = 2, num_given: int = 3) -> Tensor:
    """From chunk `first` to `chunks` - 1, between latents that are given on both sides."""
    sigmas, schedule = sigmas_of(schedule), with_right_context(schedule, chunks, right, first)
    start, stop = (schedule.latents(range(chunk)).stop for chunk in (first, chunks))
    after = range(stop, stop + right)
    state = state_from_clip(schedule, clean_latents(range(start - num_given, start)), sigmas, first)
    state = replace(state, right_context=clean_latents(after))
    checker = ExactBefore(schedule, NOISE, sigmas, chunks, num_given, first, after=after)
    out = list(sample(schedule, checker, NOISE, build_solver(sigmas), chunks=chunks, start=state))
    assert checker.now == schedule.total_steps(chunks) - schedule.entry_step(first)
    assert checker.joining
    return joined(out)


@every_schedule
@pytest.mark.parametrize(("first", "chunks"), [(0, 1), (0, 9), (2, 4), (3, 14)])
def test_the_last_chunks_see_what_follows_them(schedule: Schedule, first: int, chunks: int) -> None:
    latents = schedule.latents(range(first, chunks))
    assert_same(run(schedule, first, chunks), clean_latents(latents))


@every_schedule
def test_as_many_chunks_see_it_as_the_window_has_room_for(schedule: Schedule) -> None:
    joining = with_right_context(schedule, 20, schedule.chunk, 3)
    assert joining.right_context_from is not None
    left = schedule.chunk if schedule.fill_to else 0
    assert (20 - joining.right_context_from) * schedule.chunk + joining.right_context + left == schedule.window
    assert with_right_context(schedule, 4, schedule.chunk, 3).right_context_from == 3


def test_as_many_steps_are_recorded_as_are_made(either_way: Taped | None) -> None:
    run(SCHEDULES["pa"], 3, 14)
    schedule = with_right_context(SCHEDULES["pa"], 14, 2, 3)
    assert either_way is None or either_way.backend.replays == schedule.total_steps(14) - schedule.entry_step(3)


def mixed(schedule: Schedule, chunks: int, solver: Any, start: SamplerState | None = None) -> list[Tensor]:
    return list(sample(schedule, Mixing(), NOISE, solver, chunks=chunks, start=start))


@every_schedule
@pytest.mark.parametrize("kind", ["euler", "unipc"])
@pytest.mark.integration
def test_any_saved_state_leads_to_the_same_bytes(schedule: Schedule, kind: str) -> None:
    sigmas = sigmas_of(schedule)
    solver = build_solver(sigmas) if kind == "euler" else unipc(noise_levels(sigmas))
    schedule, right = with_right_context(schedule, 9, 2, 2), clean_latents(range(90, 92))
    start = replace(state_from_clip(schedule, clean_latents(range(5)), sigmas, 2), right_context=right)
    whole = mixed(schedule, 9, solver, start)
    assert len(whole) == 7
    for state in denoise(schedule, Mixing(), NOISE, solver, chunks=9, start=start):
        rest = mixed(schedule, 9, solver, state)
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


@every_schedule
def test_only_the_joining_chunks_depend_on_what_follows(schedule: Schedule) -> None:
    sigmas = sigmas_of(schedule)
    schedule = with_right_context(schedule, 9, 2, 2)
    assert schedule.right_context_from is not None
    start = state_from_clip(schedule, clean_latents(range(5)), sigmas, 2)
    first, second = (
        mixed(schedule, 9, build_solver(sigmas), replace(start, right_context=clean_latents(range(begin, begin + 2))))
        for begin in (90, 80)
    )
    same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [index < schedule.right_context_from for index in range(2, 9)]


def looping(schedule: Schedule, chunks: int, before: int = 1) -> Schedule:
    """The first two chunks after so many of a warm-up follow the last one."""
    loop = range(before, before + 2)
    return replace(with_right_context(schedule, chunks, len(schedule.latents(loop))), loop=loop)


@every_schedule
@pytest.mark.parametrize("before", [0, 1])
def test_a_loop_is_shown_its_own_first_chunks(schedule: Schedule, before: int) -> None:
    sigmas, schedule = sigmas_of(schedule), looping(schedule, 9, before)
    checker = ExactBefore(schedule, NOISE, sigmas, 9, after=schedule.latents(schedule.loop))
    out = joined(list(sample(schedule, checker, NOISE, build_solver(sigmas), chunks=9)))
    assert checker.joining
    assert_same(out, clean_latents(schedule.latents(range(9))))


@every_schedule
def test_a_loop_starts_as_the_same_video_without_one(schedule: Schedule) -> None:
    sigmas, loop_schedule = sigmas_of(schedule), looping(schedule, 9)
    assert loop_schedule.right_context_from is not None
    plain, loop = (mixed(variant, 9, build_solver(sigmas)) for variant in (schedule, loop_schedule))
    assert [torch.equal(a, b) for a, b in zip(plain, loop, strict=True)] == [
        n < loop_schedule.right_context_from for n in range(9)
    ]


def test_every_saved_state_of_a_loop_knows_its_first_chunks() -> None:
    schedule = looping(SCHEDULES["pa"], 9)
    solver = build_solver(sigmas_of(schedule))
    whole = mixed(schedule, 9, solver)
    for state in denoise(schedule, Mixing(), NOISE, solver, chunks=9):
        rest = mixed(schedule, 9, solver, state)
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


def right_context_missing(state: SamplerState, *rest: Any) -> SamplerState:
    after = loop_advance(state, *rest)
    return replace(after, window=after.window.clone().index_fill_(1, torch.tensor([after.window.shape[1] - 1]), 0))


def noisy_right_context(state: SamplerState, active: range, schedule: Schedule, *rest: Any) -> SamplerState:
    after = loop_advance(state, active, schedule, *rest)
    return replace(after, window=torch.cat([after.window[:, :-1], torch.randn_like(after.window[:, -1:])], dim=1))


def updated(window: Tensor, levels: Tensor, *rest: Any, **more: Any) -> Any:
    return denoise_step(window, levels.clamp(min=1), *rest, **more)


def shifted_loop(state: SamplerState, schedule: Schedule, leaving: int) -> Tensor | None:
    return grow_right_context(
        state, replace(schedule, loop=range(schedule.loop.start, schedule.loop.stop - 1)), leaving
    )


loop_advance: Callable[..., SamplerState] = loop.shift_window
denoise_step: Callable[..., Any] = loop.denoise_step
BUGS: dict[str, tuple[str, Callable[..., Any]]] = {
    "missing": ("shift_window", right_context_missing),
    "noisy": ("shift_window", noisy_right_context),
    "updated": ("denoise_step", updated),
}


@pytest.fixture
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    name, bug = BUGS[request.param]
    monkeypatch.setattr(loop, name, bug)
    return


@pytest.mark.parametrize("planted", BUGS, indirect=True)
@pytest.mark.usefixtures("planted")
def test_a_planted_bug_is_caught() -> None:
    with pytest.raises(AssertionError):
        run(SCHEDULES["pa"], 3, 14)


def test_a_loop_of_too_few_of_its_chunks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "grow_right_context", shifted_loop)
    with pytest.raises(AssertionError):
        test_a_loop_is_shown_its_own_first_chunks(SCHEDULES["pa"], 1)


def test_from_nothing_a_video_leads_to_given_latents() -> None:
    schedule, sigmas = SCHEDULES["pa"], sigmas_of(SCHEDULES["pa"])
    schedule, after = with_right_context(schedule, 8, 2), range(16, 18)
    start = replace(empty_state(NOISE, sigmas), right_context=clean_latents(after))
    checker = ExactBefore(schedule, NOISE, sigmas, 8, after=after)
    out = list(sample(schedule, checker, NOISE, build_solver(sigmas), chunks=8, start=start))
    assert_same(joined(out), clean_latents(range(16)))
