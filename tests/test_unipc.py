"""UniPC: against recorded trajectories of independent solvers per frame, and as a solver of any schedule."""

from __future__ import annotations

import math

import pytest
import torch
from support.exact import NOISE, Mixing
from support.wan import golden, index
from torch import Tensor

from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, shifted_sigmas
from pavdm_cli.sampling.schedule import pa
from pavdm_cli.sampling.solver import Solver, euler
from pavdm_cli.sampling.unipc import unipc, unipc_coefficients


@pytest.mark.parametrize("case", index()["schedules"]["cases"], ids=lambda case: f"{case['steps']}-{case['shift']}")
def test_sigmas_and_timesteps_are_the_recorded_ones(case: dict[str, float]) -> None:
    steps, shift, recorded = int(case["steps"]), case["shift"], golden("schedules")
    levels, name = wan_levels(steps, shift, 20), f"s{steps}_shift{shift:g}"
    torch.testing.assert_close(levels.sigmas[: steps + 1].flip(0), recorded[f"{name}.sigmas"], rtol=0, atol=1e-7)
    assert torch.equal(levels.timesteps[1 : steps + 1].flip(0).long(), recorded[f"{name}.timesteps"])
    assert (levels.timesteps[0], levels.timesteps[levels.unstarted_level], levels.timesteps[levels.context_level]) == (
        0,
        999,
        20,
    )
    assert levels.sigmas[levels.context_level] == torch.tensor(0.02)


@pytest.mark.parametrize("name", ["unipc_a", "unipc_b", "unipc_c", "unipc_d"])
@pytest.mark.parametrize("kind", ["unipc", "euler"])
def test_trajectories_are_the_recorded_ones(name: str, kind: str) -> None:
    case, about = golden(name), index()[name]
    levels = wan_levels(about["steps"], about["shift"])
    solver: Solver = unipc(levels) if kind == "unipc" else euler(levels)
    row_of = {int(time): level for level, time in enumerate(levels.timesteps[: levels.steps + 1])}
    state = case["x_init"].transpose(0, 1)[None]
    history = solver.history(state)
    for row, (times, updated) in enumerate(zip(case["matrix"], case["update"], strict=True)):
        rows = [row_of[int(time)] if update else 0 for time, update in zip(times, updated, strict=True)]
        velocity = -case[f"{kind}.v"][row].transpose(0, 1)[None]
        state, history = solver.step(state, velocity, torch.tensor(rows, dtype=torch.int32), history)
        torch.testing.assert_close(state[0].transpose(0, 1), case[f"{kind}.x"][row], rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigmas", [linear_sigmas(6), shifted_sigmas(6, 3.0)], ids=["linear", "warped"])
def test_levels_that_begin_at_pure_noise_have_finite_coefficients(sigmas: Tensor) -> None:
    table = unipc_coefficients(sigmas.double())
    assert table.isfinite().all()
    assert torch.equal(table[0], torch.tensor([1.0, 0, 0, 0]).double().expand(3, 4))
    torch.testing.assert_close(table[1, 0], torch.tensor([1.0, sigmas[1].double(), 0, 0]).double())


def test_a_chunk_that_enters_below_the_top_begins_with_order_one() -> None:
    levels = noise_levels(linear_sigmas(6))
    solver, latent = unipc(levels), torch.randn(1, 1, 2, 2, 2)
    velocity, row = torch.randn_like(latent), torch.tensor([3], dtype=torch.int32)
    result, history = solver.step(latent, velocity, row, solver.history(latent))
    plain, _ = euler(levels).step(latent, velocity, row, ())
    torch.testing.assert_close(result, plain)  # of order one they are the same
    assert history[2].item() == 1


def test_more_steps_come_closer_to_the_same_end_and_faster_than_euler() -> None:
    def end(steps: int, build: object) -> Tensor:
        levels = noise_levels(shifted_sigmas(steps, 3.0).double())
        solver: Solver = build(levels)  # type: ignore[operator]
        z = torch.full((1, 1, 1, 1, 1), 1.5, dtype=torch.float64)
        history = solver.history(z)
        for level in range(steps, 0, -1):
            sigma = levels.sigmas[level]
            velocity = torch.sin(3 * z) - z * (1 + sigma)
            z, history = solver.step(z, velocity, torch.tensor([level], dtype=torch.int32), history)
        return z

    true = end(2000, euler)
    errors = {name: abs(end(20, build) - true).item() for name, build in (("euler", euler), ("unipc", unipc))}
    assert errors["unipc"] < errors["euler"] / 3
    assert not math.isnan(errors["unipc"])


def test_rows_that_do_not_step_keep_latents_and_their_age() -> None:
    levels = wan_levels(6, 8.0, 20)
    solver, window = unipc(levels), torch.randn(1, 3, 1, 2, 2)
    rows = torch.tensor([0, levels.unstarted_level, levels.context_level], dtype=torch.int32)
    result, history = solver.step(window, torch.randn_like(window), rows, solver.history(window))
    assert torch.equal(result, window)
    assert not history[2].any()


def test_it_drives_the_sampler_and_differs_from_euler() -> None:
    schedule, levels = pa(6, 6, 2), noise_levels(linear_sigmas(6).double())
    first, second = (
        torch.cat(list(sample(schedule, Mixing(), NOISE, build(levels), chunks=4)), dim=1) for build in (unipc, euler)
    )
    assert first.shape == second.shape
    assert not torch.allclose(first, second)
