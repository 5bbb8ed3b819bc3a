"""Solvers with a history: it enters, shifts and leaves the window together with its latents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from support.exact import NOISE, Mixing, build_solver, clean_latents, every_method, sigmas_of
from torch import Tensor

from pavdm_cli.sampling.loop import denoise, sample, state_from_renoised_clip
from pavdm_cli.sampling.noise import NoiseLevels, noise_levels
from pavdm_cli.sampling.schedule import Schedule, pa
from pavdm_cli.sampling.solver import History


@dataclass(frozen=True)
class Table:
    """z' = a z + b v + c M + d P with coefficients by level and age; M, P: the last two clean predictions."""

    levels: NoiseLevels
    coefficients: Tensor  # (steps + 3, 3, 4)

    def history(self, latents: Tensor, /) -> History:
        age = torch.zeros(latents.shape[:2], dtype=torch.int32)
        return torch.zeros_like(latents), torch.zeros_like(latents), age

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        last, before, age = history
        a, b, c, d = self.coefficients[levels.long(), age.long()][..., None, None, None].unbind(-4)
        clean = window + self.levels.sigmas[levels.long()][..., None, None, None] * velocity
        stepped = ((levels > 0) & (levels <= self.levels.steps)).expand_as(age)
        clips = [torch.where(stepped[..., None, None, None], *pair) for pair in ((clean, last), (last, before))]
        aged = torch.where(stepped, (age + 1).clamp(max=2), age).to(age.dtype)
        return a * window + b * velocity + c * last + d * before, (*clips, aged)


def table(schedule: Schedule, seed: int = 0) -> Table:
    """Random coefficients, so that every level and every age counts; rows that do not step are the identity."""
    levels = noise_levels(sigmas_of(schedule))
    generator = torch.Generator().manual_seed(seed)
    coefficients = 0.3 * torch.randn(schedule.steps + 3, 3, 4, generator=generator, dtype=torch.float64)
    coefficients[..., 0] += 1
    for row in (0, levels.unstarted_level, levels.context_level):
        coefficients[row] = torch.tensor([1.0, 0, 0, 0])
    return Table(levels, coefficients)


class Apart(Mixing):
    """A velocity of each latent and its level alone, so that a chunk's path is that of its latents by themselves."""

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        return torch.tanh(window * (1 + levels[:, None, None, None])) - window


def path(solver: Table, latent: Tensor) -> Tensor:  # (B, 1, C, H, W)
    """One latent from noise to clean, step by step, with the update written out."""
    last = before = torch.zeros_like(latent)
    for age, level in enumerate(range(solver.levels.steps, 0, -1)):
        velocity = torch.tanh(latent * (1 + level)) - latent
        a, b, c, d = solver.coefficients[level, min(age, 2)]
        clean = latent + solver.levels.sigmas[level] * velocity
        latent, last, before = a * latent + b * velocity + c * last + d * before, clean, last
    return latent


@every_method
@pytest.mark.usefixtures("either_way")
def test_every_latent_follows_its_own_path_in_any_chunk(schedule: Schedule) -> None:
    solver = table(schedule)
    video = torch.cat(list(sample(schedule, Apart(), NOISE, solver, chunks=4)), dim=1)
    for index in range(video.shape[1]):
        torch.testing.assert_close(video[:, index : index + 1], path(solver, NOISE(index).double()[:, None]))


@every_method
def test_sampling_continues_from_any_state_with_its_history(schedule: Schedule) -> None:
    solver = table(schedule)
    start = state_from_renoised_clip(schedule, clean_latents(range(-5, 0)), NOISE, solver.levels.sigmas)
    whole = list(sample(schedule, Mixing(), NOISE, solver, chunks=3, start=start))
    for state in denoise(schedule, Mixing(), NOISE, solver, chunks=3, start=start):
        rest = list(sample(schedule, Mixing(), NOISE, solver, chunks=3, start=state))
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


def test_a_history_that_stays_behind_its_latents_is_caught() -> None:
    schedule = pa(6, 6, 2)
    solver = table(schedule)
    states = denoise(schedule, Apart(), NOISE, solver, chunks=4)
    state = next(states)
    while True:
        try:
            wrong = tuple(part.roll(1, dims=1) for part in state.history)
            state = states.send(replace(state, history=wrong))
        except StopIteration:
            break
    assert not torch.allclose(state.window[:, -1:], path(solver, NOISE(7).double()[:, None]))


def test_rows_for_waiting_latents_and_the_context_do_not_step() -> None:
    levels = noise_levels(torch.linspace(0, 1, 5).double(), context=0.02)
    assert (levels.steps, levels.unstarted_level, levels.context_level) == (4, 5, 6)
    assert levels.sigmas[levels.unstarted_level] == 1
    window = torch.randn(1, 3, 1, 2, 2).double()
    rows = torch.tensor([0, levels.unstarted_level, levels.context_level], dtype=torch.int32)
    result, _ = build_solver(torch.linspace(0, 1, 5).double()).step(window, torch.ones_like(window), rows, ())
    assert torch.equal(result, window)


def test_a_model_with_noisy_context_is_prefilled_at_every_step() -> None:
    levels, calls = noise_levels(torch.linspace(0, 1, 7).double(), context=0.02), list[tuple[Tensor, int]]()

    class Seeing(Mixing):
        def prefill(self, context: Tensor, level: int, /) -> Tensor:
            calls.append((context, level))
            return super().prefill(context, level)

    schedule = pa(6, 6, 2)
    out = list(sample(schedule, Seeing(), NOISE, replace(build_solver(levels.sigmas[:-2]), levels=levels), chunks=3))
    assert {level for _, level in calls} == {levels.context_level}
    assert len(calls) == schedule.total_steps(3) - schedule.steps
    now = schedule.steps  # the first step after the first chunk has left
    fresh = torch.stack([NOISE(index, now) for index in range(2)], dim=1).double()
    torch.testing.assert_close(calls[0][0], 0.98 * out[0] + 0.02 * fresh)
