"""Guidance towards latents that follow: its definition, where it applies, and saved states inside of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from support.exact import NOISE, Mixing, build_solver, clean_latents, joined, sigmas_of
from support.ways import Taped
from torch import Tensor

from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import denoise, sample, state_from_clip
from pavdm_cli.sampling.right_context import (
    JoinConfig,
    with_loop_context,
    with_right_context,
    with_right_context_guidance,
)
from pavdm_cli.sampling.schedule import Schedule, pa

pytestmark = pytest.mark.usefixtures("either_way")
SCHEDULES = {
    "pa": pa(6, 12, 2),
    "first-chunk": replace(pa(8, 12, 3), first_chunk=1),
    "odd-stride": Schedule(steps=7, stride=3, chunk=2, context=3),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
SCALE, CHUNKS, LATENTS = 2.5, 9, 2


@dataclass
class GuidedByLevels(Mixing):
    """The definition: any window that ends with clean latents is extrapolated from the velocity without them."""

    scale: float = SCALE
    guided: int = 0

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        with_context = super().__call__(window, levels, cache)
        count = int((levels > 0).sum())
        if count == len(levels) or self.scale == 1:
            return with_context
        self.guided += 1
        without = super().__call__(window[:, :count], levels[:count], cache)
        guided = without + self.scale * (with_context[:, :count] - without)
        return torch.cat([guided, with_context[:, count:]], dim=1)


def schedule_of(kind: str, schedule: Schedule, guidance: float) -> Schedule:
    if kind == "loop":
        return with_loop_context(schedule, CHUNKS, 1, JoinConfig(guidance=guidance))
    return with_right_context(schedule, CHUNKS, LATENTS, join=JoinConfig(guidance=guidance))


def video(kind: str, schedule: Schedule, denoiser: Denoiser) -> Tensor:
    sigmas = sigmas_of(schedule)
    start = state_from_clip(schedule, clean_latents(range(5)), sigmas)
    start = replace(start, right_context=clean_latents(range(90, 90 + LATENTS)) if kind == "span" else None)
    return joined(list(sample(schedule, denoiser, NOISE, build_solver(sigmas), chunks=CHUNKS, start=start)))


@every_schedule
@pytest.mark.parametrize("kind", ["span", "loop"])
def test_windows_that_see_what_follows_are_guided_as_defined(schedule: Schedule, kind: str) -> None:
    definition = GuidedByLevels()
    expected = video(kind, schedule_of(kind, schedule, 1), definition)
    assert definition.guided
    assert torch.equal(video(kind, schedule_of(kind, schedule, SCALE), Mixing()), expected)
    assert not torch.equal(video(kind, schedule_of(kind, schedule, 1), Mixing()), expected)


@every_schedule
def test_guidance_changes_nothing_before_what_follows_is_seen(schedule: Schedule) -> None:
    plain, guided = (video("span", schedule_of("span", schedule, scale), Mixing()) for scale in (1, SCALE))
    join = schedule_of("span", schedule, SCALE).right_context_from
    assert join is not None
    stop = schedule.latents(range(join)).stop
    assert torch.equal(plain[:, :stop], guided[:, :stop])


@every_schedule
def test_a_saved_state_of_a_guided_video_leads_to_the_same_bytes(schedule: Schedule) -> None:
    sigmas, guided = sigmas_of(schedule), schedule_of("loop", schedule, SCALE)
    solver = build_solver(sigmas)
    whole = list(sample(guided, Mixing(), NOISE, solver, chunks=CHUNKS))
    for state in denoise(guided, Mixing(), NOISE, solver, chunks=CHUNKS):
        rest = list(sample(guided, Mixing(), NOISE, solver, chunks=CHUNKS, start=state))
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


@every_schedule
def test_all_steps_but_guided_ones_are_replayed(schedule: Schedule, either_way: Taped | None) -> None:
    guided = schedule_of("span", schedule, SCALE)
    video("span", guided, Mixing())
    windows = [guided.active_chunks(now, 0, CHUNKS) for now in range(guided.total_steps(CHUNKS))]
    unguided_count = sum(not guided.is_guided(window) for window in windows)
    assert 0 < unguided_count < len(windows)
    if either_way:
        assert either_way.backend.replays == unguided_count
        num_context = min(5, schedule.context)
        assert either_way.count == len(schedule.sizes(0, 0, num_context, CHUNKS))


def test_what_follows_keeps_its_own_velocity_and_the_scale_extrapolates() -> None:
    def velocity(window: Tensor, levels: Tensor) -> Tensor:
        return torch.full_like(window, float(len(levels)))

    guided = with_right_context_guidance(velocity, 2, 3.0)(torch.zeros(1, 6, 1, 1, 1), torch.zeros(6))
    assert guided.flatten().tolist() == [4 + 3 * (6 - 4)] * 4 + [6] * 2


@pytest.mark.parametrize(("model", "scale"), [("pocket", 2.0), ("opensora-v1.2", 1.0)])
def test_the_model_decides_the_scale(model: str, scale: float) -> None:
    config = resolve(build_request({"prompt": "a red ball", "model": model, "loop": True, "seconds": 20.0}))
    assert config.schedule.right_context_guidance == scale
    assert config.schedule.without_right_context == replace(
        config.schedule, right_context=0, right_context_from=None, right_context_guidance=1, loop=range(0)
    )
