"""Noise as a function of its index, and the noise levels."""

import json
from itertools import count
from pathlib import Path

import pytest
import torch

from pavdm_cli.models.opensora.config import timestep_shift
from pavdm_cli.sampling.noise import linear_sigmas, seeded_noise, shifted_sigmas

SHAPE = (2, 3, 2, 2)


def test_noise_is_a_pure_function_of_seed_latent_and_step() -> None:
    keys = [(seed, index, step) for seed in (-1, 0, 7) for index in (-3, 0, 1, 2**40) for step in (None, 0, 1)]
    draws = [seeded_noise(seed, SHAPE)(index, step) for seed, index, step in keys]
    repeated = [seeded_noise(seed, SHAPE)(index, step) for seed, index, step in keys[::-1]][::-1]
    assert all(torch.equal(a, b) for a, b in zip(draws, repeated, strict=True))
    assert len({draw.flatten()[0].item() for draw in draws}) == len(keys)
    assert draws[0].dtype == torch.float32
    assert draws[0].shape == SHAPE


def test_noise_is_standard_normal_and_a_larger_batch_only_adds_to_it() -> None:
    large = seeded_noise(1, (4, 4, 64, 64))(0)
    assert abs(large.mean().item()) < 0.02
    assert abs(large.std().item() - 1) < 0.02
    assert torch.equal(large[:1], seeded_noise(1, (1, 4, 64, 64))(0))
    row = torch.stack([seeded_noise(1, (1, 4, 16, 16))(index) for index in range(40)]).flatten(1)
    assert torch.corrcoef(row).triu(1).abs().max() < 0.15


def test_sigmas_run_from_clean_to_noise() -> None:
    for steps, ratio in zip((1, 6, 30), count(1, 2.5), strict=False):
        sigmas = shifted_sigmas(steps, ratio)
        assert sigmas[[0, -1]].tolist() == [0, 1]
        assert len(sigmas) == steps + 1
        assert sigmas.diff().min() > 0
    torch.testing.assert_close(linear_sigmas(4), torch.tensor([0, 0.25, 0.5, 0.75, 1]))


def test_the_paper_setting_has_the_recorded_levels() -> None:
    recorded = json.loads((Path(__file__).parent / "golden" / "schedule_paper.json").read_text())
    shift = timestep_shift(240, 424, 119)
    assert shift == pytest.approx(3.685977, abs=1e-6)
    for name, sigmas in (("t_uniform", linear_sigmas(30)), ("t_transformed_fp32", shifted_sigmas(30, shift))):
        torch.testing.assert_close(1000 * sigmas[1:], torch.tensor(recorded[name]), atol=2e-4, rtol=0)


def test_short_windows_count_a_latent_for_every_four_frames() -> None:
    counts = (1, 2, 5, 16, 17, 33, 34)
    assert [round(timestep_shift(512, 512, frames) ** 2) for frames in counts] == [1, 1, 2, 4, 5, 5, 10]
