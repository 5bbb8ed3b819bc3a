"""Noise levels of training against those of sampling."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from support.models import MODELS

from pavdm_cli.errors import UsageError
from pavdm_cli.sampling.noise import shifted_sigmas
from pavdm_cli.sampling.right_context import with_right_context
from pavdm_cli.sampling.schedule import pa
from pavdm_cli.training.levels import (
    DEFAULT_STAGES,
    POCKET_STAGES,
    Diagonal,
    StageProbabilities,
    WindowStage,
    apply_clean_masks,
    progressive_timesteps,
    sample_window_stage,
    shift_timesteps,
    uniform_timesteps,
)

DIAGONALS = [Diagonal(24, 6, 2), Diagonal(6, 3, 2), Diagonal(8, 4, 1), Diagonal(5, 5, 3), Diagonal(12, 1, 4)]
every_diagonal = pytest.mark.parametrize("diagonal", DIAGONALS, ids=lambda d: f"{d.steps}-{d.chunks}x{d.chunk}")


def draws(diagonal: Diagonal, count: int = 20_000, stages: StageProbabilities = DEFAULT_STAGES) -> list[WindowStage]:
    rng = random.Random(5)
    return [sample_window_stage(diagonal, rng, stages) for _ in range(count)]


def kind(window: WindowStage, diagonal: Diagonal) -> str:
    """Ramp-up windows end at the top of the diagonal, ramp-down ones begin at its bottom; both may be full."""
    if not window.has_context:
        return "ramp-up from nothing"
    if window.rejoins:
        return "rejoining"
    if window.chunks == diagonal.chunks:
        return "full"
    return "ramp-down" if window.first_chunk == 0 else "ramp-up from a clip"


def levels(diagonal: Diagonal, window: WindowStage) -> tuple[int, ...]:
    """The integer levels of a window, from its timesteps without an offset."""
    start = window.first_chunk * diagonal.chunk
    times = diagonal.timesteps(window.stage)[start : start + window.chunks * diagonal.chunk]
    return tuple((times * diagonal.steps / 1000).round().int().tolist())


@pytest.mark.parametrize("stages", [DEFAULT_STAGES, POCKET_STAGES], ids=["usual", "pocket"])
def test_window_stages_have_the_configured_probabilities(stages):
    diagonal = Diagonal(24, 6, 2)
    windows = draws(diagonal, stages=stages)
    counts = Counter(kind(window, diagonal) for window in windows)
    expected = {
        "full": stages.full + stages.ramp_up_from_clip / 6,  # a sixth of them are full
        "ramp-up from nothing": stages.ramp_up,
        "ramp-up from a clip": stages.ramp_up_from_clip * 5 / 6,
        "ramp-down": stages.ramp_down,
        "rejoining": stages.rejoining,
    }
    assert math.isclose(sum(expected.values()), 1)
    assert {name: counts[name] / len(windows) for name in expected} == pytest.approx(expected, abs=0.012)


def test_pocket_has_more_ramp_up_and_rejoining_windows():
    assert 0.35 <= POCKET_STAGES.ramp_up <= 0.40
    assert POCKET_STAGES.rejoining == 0.14
    assert DEFAULT_STAGES.rejoining == 0
    rejoining = [w for w in draws(Diagonal(24, 6, 2), stages=POCKET_STAGES) if w.rejoins]
    assert {window.chunks for window in rejoining} == {1, 2, 3, 4, 5}  # the clean chunk takes the place of one
    assert all(window.has_context for window in rejoining)
    assert {window.first_chunk for window in rejoining} == {0, 1, 2, 3, 4, 5}
    assert sum(window.first_chunk == 0 for window in rejoining) > len(rejoining) / 2


def test_chunks_that_have_not_started_are_pure_noise():
    """As in sampling a span of four chunks that leads up to a clean one: see `Schedule.levels`."""
    diagonal = Diagonal(12, 6, 2)
    schedule = with_right_context(pa(12, 12, 2), 4, 2)
    for now in range(2 * 6):
        active = schedule.active_chunks(now, 0, 4)
        window = WindowStage(5 - now // 2, 4, now % 2, has_context=True, rejoins=True)
        timesteps = progressive_timesteps(diagonal, window, torch.zeros(1))[0]
        noisy = torch.tensor(schedule.levels(active, now)[:-2]).clamp(max=12) * 1000 / 12
        torch.testing.assert_close(timesteps[: len(noisy)], noisy.clamp(max=999.0))


def test_stages_and_lengths_are_uniform():
    diagonal = Diagonal(24, 6, 2)
    windows = draws(diagonal)
    stages = Counter(window.stage for window in windows)
    assert {stage: stages[stage] / len(windows) for stage in range(4)} == pytest.approx(
        dict.fromkeys(range(4), 0.25), abs=0.012
    )
    ramp_up = Counter(window.chunks for window in windows if not window.has_context)
    assert {n: ramp_up[n] / ramp_up.total() for n in range(1, 7)} == pytest.approx(
        dict.fromkeys(range(1, 7), 1 / 6), abs=0.02
    )
    ramp_down = Counter(w.chunks for w in windows if kind(w, diagonal) == "ramp-down")
    assert {n: ramp_down[n] / ramp_down.total() for n in range(1, 6)} == pytest.approx(
        dict.fromkeys(range(1, 6), 1 / 5), abs=0.03
    )


@every_diagonal
def test_training_covers_exactly_the_windows_of_sampling(diagonal):
    schedule = pa(diagonal.steps, diagonal.chunks * diagonal.chunk, diagonal.chunk)
    chunks, windows = 2 * diagonal.chunks + 1, set()
    for now in range(schedule.total_steps(chunks)):
        present = schedule.active_chunks(now, chunks=chunks)
        windows.add((schedule.levels(present, now), present.start > 0))
        windows.add((schedule.levels(present, now), True))  # the same after a clip
    stages = {(levels(diagonal, window), window.has_context) for window in draws(diagonal, 5000)}
    assert stages == windows


@every_diagonal
def test_a_stage_is_a_step_of_the_sampler(diagonal):
    schedule = pa(diagonal.steps, diagonal.chunks * diagonal.chunk, diagonal.chunk)
    full = (diagonal.chunks - 1) * diagonal.stride  # the first step at which the window is full
    for stage in range(diagonal.stride):
        window = WindowStage(0, diagonal.chunks, stage, has_context=False)
        assert levels(diagonal, window) == schedule.levels(schedule.active_chunks(full + stage), full + stage)


def test_pocket_samples_at_trained_timesteps():
    spec = MODELS["pocket"]
    chunks = spec.window // spec.chunk
    coarse, fine = (Diagonal(steps, chunks, spec.chunk) for steps in (spec.steps, spec.trained_steps))
    trained = [fine.timesteps(stage) for stage in range(fine.stride)]
    for stage in range(coarse.stride):
        assert any(torch.allclose(coarse.timesteps(stage), times) for times in trained), stage


def test_chunks_must_divide_the_steps():
    with pytest.raises(UsageError, match="multiple of the 5 chunks, got 24"):
        Diagonal(24, 5, 2)


def test_the_offset_of_a_sample_is_two_fifths_of_a_level():
    diagonal = Diagonal(24, 6, 2)
    offsets = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    window = WindowStage(1, 4, 2, has_context=True)
    difference = progressive_timesteps(diagonal, window, offsets) - diagonal.timesteps(2)[2:10]
    assert (difference - difference[:, :1]).abs().max() < 1e-3
    assert difference[:, 0].std().item() == pytest.approx(0.4 * 1000 / 24, rel=0.02)
    assert difference[:, 0].mean().item() == pytest.approx(0, abs=0.5)


def test_progressive_timesteps_are_clamped():
    diagonal = Diagonal(24, 6, 2)
    for stage in range(4):
        times = progressive_timesteps(
            diagonal, WindowStage(0, 6, stage, has_context=True), torch.tensor([-9.0, 0.0, 9.0])
        )
        assert times.min() >= 0
        assert times.max() <= 999
    assert progressive_timesteps(diagonal, WindowStage(0, 6, 0, has_context=True), torch.zeros(1))[0, -1] == 999


def test_the_timestep_shift_equals_that_of_sampling():
    times = torch.linspace(0, 1000, 31)
    torch.testing.assert_close(shift_timesteps(times, 3.7) / 1000, shifted_sigmas(30, 3.7))
    torch.testing.assert_close(shift_timesteps(times, 1.0), times)


def test_base_has_one_uniform_level_per_sample():
    times = uniform_timesteps(14, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(times, times[:, :1].expand(-1, 14))
    assert times[:, 0].quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([250, 500, 750], abs=25)


def test_base_masks_half_of_the_samples_but_never_all_frames():
    times = apply_clean_masks(torch.full((8000, 14), 500.0), random.Random(0))
    clean = times == 0
    assert set(times.unique().tolist()) == {0.0, 500.0}
    assert clean.any(1).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert clean.sum(1).max() <= 7
    changes = (clean[:, 1:] != clean[:, :-1]).sum(1)  # runs of clean frames at an end change once
    front = clean[:, 0] & ~clean[:, -1] & (changes == 1)
    back = clean[:, -1] & ~clean[:, 0] & (changes == 1)
    both = clean[:, 0] & clean[:, -1] & (changes == 2)
    shares = [rows.float().mean().item() for rows in (front, back, both)]
    assert shares == pytest.approx([0.25, 0.10, 0.05], abs=0.03)
