"""What training shows the denoiser: the recorded losses and gradients, and the levels that sampling will show it."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.opensora.config import warp_ratio
from pavdm_cli.models.specs import MODELS
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.sampling.noise import warped_sigmas
from pavdm_cli.sampling.schedule import pa
from pavdm_cli.training.levels import (
    POCKET_MOMENTS,
    USUAL_MOMENTS,
    Diagonal,
    Moments,
    Window,
    draw_window,
    progressive,
    some_clean,
    uniform,
    warped,
)
from pavdm_cli.training.losses import Batch, noised, velocity_loss, window_velocity

GOLDEN = Path(__file__).parent / "golden"
SMALL = STDiTConfig(hidden=64, depth=2, heads=4, in_channels=4, out_channels=8, text_width=32, text_length=12)
Recording = dict[str, Tensor]
DIAGONALS = [Diagonal(24, 6, 2), Diagonal(6, 3, 2), Diagonal(8, 4, 1), Diagonal(5, 5, 3), Diagonal(12, 1, 4)]
every_diagonal = pytest.mark.parametrize("diagonal", DIAGONALS, ids=lambda d: f"{d.steps}-{d.chunks}x{d.chunk}")


def recorded(name: str) -> Recording:
    """A recording with latents as (B, T, C, H, W)."""
    values = load_file(GOLDEN / f"{name}.safetensors")
    return {
        key: value.transpose(1, 2) if value.ndim == 5 and "grad" not in key else value for key, value in values.items()
    }


def shift_keep1(run: Recording) -> Batch:
    """Progressive levels at a random stage under one shift a sample, after a clean chunk that carries no loss."""
    stage = json.loads((GOLDEN / "index.json").read_text())["train_shift_keep1.safetensors"]["python_randint"][0]
    times = progressive(Diagonal(6, 3, 2), Window(0, 3, stage, overlap=True), run["noise.0"][:, 0])
    clean = (0, 0, 0, 0, 0, 0, 2, 0)  # two frames in front
    counted, noise = torch.ones_like(times), run["noise.1"]
    pad = torch.nn.functional.pad
    return Batch(run["x_start"], pad(noise, clean), pad(times, (2, 0)), pad(counted, (2, 0)))


def linear(run: Recording) -> Batch:
    """A level a frame, evenly spaced."""
    times = Diagonal(6, 6, 1).timesteps(0).expand(2, -1)
    return Batch(run["x_start"], run["noise.0"], times, torch.ones_like(times))


def base_mask(run: Recording) -> Batch:
    """One level a sample, pushed towards noise; masked frames are clean and carry no loss."""
    times, shown = warped(run["rand.0"] * 1000, warp_ratio(240, 424, 119)), run["mask"]
    return Batch(run["x_start"], run["noise.0"], torch.where(shown, times[:, None], 0.0), shown.float())


@dataclass
class Seen:
    """What the model was given and gave back, with the loss of each sample."""

    z: Tensor
    out: Tensor
    loss: Tensor
    model: STDiT


def run_training(batch: Batch, run: Recording) -> Seen:
    """One training step through the function that trains, on the recorded weights."""
    model = STDiT(SMALL)
    model.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    seen: list[Tensor] = []
    model.register_forward_hook(lambda _m, given, out: seen.extend([given[0], out]))
    text = model.encode_text(run["y"][:, 0], run["text_mask"])
    size = (float(run["arg.height"][0]), float(run["arg.width"][0]))
    loss = velocity_loss(window_velocity(model, text, batch, run["arg.fps"], size), batch)
    loss.mean().backward()
    return Seen(seen[0], seen[1], loss, model)


CASES = {"train_shift_keep1": shift_keep1, "train_linear": linear, "train_base_mask": base_mask}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Recording, Batch, Seen]:
    run = recorded(request.param)
    batch = CASES[request.param](run)
    return run, batch, run_training(batch, run)


def test_timesteps_and_noised_latents_are_the_recorded_ones(case):
    run, batch, seen = case
    times = run["t_model"] if run["t_model"].ndim == 2 else torch.where(run["mask"], run["t_model"][:, None], 0.0)
    torch.testing.assert_close(batch.times, times, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(seen.z, run["x_t"], rtol=1e-6, atol=1e-6)


def test_the_output_is_the_recorded_one_where_it_counts(case):
    run, batch, seen = case
    counted = batch.counted.bool()
    torch.testing.assert_close(seen.out[counted], run["model_out"][:, :, :4][counted], rtol=0, atol=1e-4)


def test_losses_are_the_recorded_ones(case):
    run, _, seen = case
    torch.testing.assert_close(seen.loss.detach(), run["loss"], rtol=1e-5, atol=0)


def test_gradients_are_the_recorded_ones(case):
    run, _, seen = case
    parameters = dict(sorted(seen.model.named_parameters()))
    norms = [torch.tensor(-1.0) if p.grad is None else p.grad.norm() for p in parameters.values()]
    torch.testing.assert_close(torch.stack(norms), run["gradnorm"], rtol=1e-4, atol=0)
    full = {key.removeprefix("grad."): value for key, value in run.items() if key.startswith("grad.")}
    assert len(full) == 5
    for name, want in full.items():
        assert (parameters[name].grad - want).norm() <= 1e-4 * want.norm(), name


def test_the_right_velocity_costs_nothing_and_frames_that_do_not_count_cost_nothing():
    clean, noise = torch.randn(2, 2, 5, 3, 2, 2).unbind(0)
    counted = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).float()
    batch = Batch(clean, noise, torch.zeros(2, 5), counted)
    velocity = clean - noise
    assert velocity_loss(velocity, batch).tolist() == [0, 0]
    spoiled = velocity + (1 - counted)[:, :, None, None, None]
    assert velocity_loss(spoiled, batch).tolist() == [0, 0]
    off = velocity + counted[:, :, None, None, None] * torch.tensor([2.0, 3.0])[:, None, None, None, None]
    torch.testing.assert_close(velocity_loss(off, batch), torch.tensor([4.0, 9.0]))


def test_a_frame_is_clean_at_0_and_noise_at_1000():
    clean, noise = torch.randn(2, 1, 3, 2, 2, 2).unbind(0)
    shown = noised(clean, noise, torch.tensor([[0.0, 250.0, 1000.0]]))
    assert torch.equal(shown[:, 0], clean[:, 0])
    torch.testing.assert_close(shown[:, 1], 0.75 * clean[:, 1] + 0.25 * noise[:, 1])
    assert torch.equal(shown[:, 2], noise[:, 2])


def draws(diagonal: Diagonal, count: int = 20_000, moments: Moments = USUAL_MOMENTS) -> list[Window]:
    draw = random.Random(5)
    return [draw_window(diagonal, draw, moments) for _ in range(count)]


def kind(window: Window, diagonal: Diagonal) -> str:
    """Growing windows end at the top of the diagonal, draining ones begin at its bottom; both may be full."""
    if not window.overlap:
        return "growing from nothing"
    if window.rejoins:
        return "rejoining"
    if window.chunks == diagonal.chunks:
        return "full"
    return "draining" if window.first == 0 else "growing from a clip"


def levels(diagonal: Diagonal, window: Window) -> tuple[int, ...]:
    """The integer levels of a window, from its timesteps without a shift."""
    start = window.first * diagonal.chunk
    times = diagonal.timesteps(window.stage)[start : start + window.chunks * diagonal.chunk]
    return tuple((times * diagonal.steps / 1000).round().int().tolist())


@pytest.mark.parametrize("moments", [USUAL_MOMENTS, POCKET_MOMENTS], ids=["usual", "pocket"])
def test_windows_come_as_often_as_stated(moments):
    diagonal = Diagonal(24, 6, 2)
    windows = draws(diagonal, moments=moments)
    counts = Counter(kind(window, diagonal) for window in windows)
    expected = {
        "full": moments.full + moments.growing_from_clip / 6,  # a sixth of them have grown full
        "growing from nothing": moments.growing,
        "growing from a clip": moments.growing_from_clip * 5 / 6,
        "draining": moments.draining,
        "rejoining": moments.rejoining,
    }
    assert math.isclose(sum(expected.values()), 1)
    assert {name: counts[name] / len(windows) for name in expected} == pytest.approx(expected, abs=0.012)


def test_pocket_sees_more_starts_and_a_twentieth_of_its_windows_rejoin_a_video():
    assert 0.35 <= POCKET_MOMENTS.growing <= 0.40
    assert POCKET_MOMENTS.rejoining == 0.05
    assert USUAL_MOMENTS.rejoining == 0
    rejoining = [w for w in draws(Diagonal(24, 6, 2), moments=POCKET_MOMENTS) if w.rejoins]
    assert {window.chunks for window in rejoining} == {1, 2, 3, 4, 5}  # the clean chunk takes a place in the window
    assert all(window.first == 0 and window.overlap for window in rejoining)


def test_every_stage_and_length_comes_equally_often():
    diagonal = Diagonal(24, 6, 2)
    windows = draws(diagonal)
    stages = Counter(window.stage for window in windows)
    assert {stage: stages[stage] / len(windows) for stage in range(4)} == pytest.approx(
        dict.fromkeys(range(4), 0.25), abs=0.012
    )
    grown = Counter(window.chunks for window in windows if not window.overlap)
    assert {n: grown[n] / grown.total() for n in range(1, 7)} == pytest.approx(
        dict.fromkeys(range(1, 7), 1 / 6), abs=0.02
    )
    drained = Counter(w.chunks for w in windows if kind(w, diagonal) == "draining")
    assert {n: drained[n] / drained.total() for n in range(1, 6)} == pytest.approx(
        dict.fromkeys(range(1, 6), 1 / 5), abs=0.03
    )


@every_diagonal
def test_training_draws_what_sampling_shows_and_nothing_else(diagonal):
    schedule = pa(diagonal.steps, diagonal.chunks * diagonal.chunk, diagonal.chunk)
    chunks, shown = 2 * diagonal.chunks + 1, set()
    for now in range(schedule.total(chunks)):
        present = schedule.active_chunks(now, chunks=chunks)
        shown.add((schedule.levels(present, now), present.start > 0))
        shown.add((schedule.levels(present, now), True))  # the same after a given clip
    drawn = {(levels(diagonal, window), window.overlap) for window in draws(diagonal, 5000)}
    assert drawn == shown


@every_diagonal
def test_a_stage_is_a_step_of_the_sampler(diagonal):
    schedule = pa(diagonal.steps, diagonal.chunks * diagonal.chunk, diagonal.chunk)
    full = (diagonal.chunks - 1) * diagonal.stride  # the first step at which the window is full
    for stage in range(diagonal.stride):
        window = Window(0, diagonal.chunks, stage, overlap=False)
        assert levels(diagonal, window) == schedule.levels(schedule.active_chunks(full + stage), full + stage)


def test_pocket_samples_at_timesteps_it_was_trained_at():
    spec = MODELS["pocket"]
    chunks = spec.window // spec.chunk
    coarse, fine = (Diagonal(steps, chunks, spec.chunk) for steps in (spec.steps, spec.trained_steps))
    trained = [fine.timesteps(stage) for stage in range(fine.stride)]
    for stage in range(coarse.stride):
        assert any(torch.allclose(coarse.timesteps(stage), times) for times in trained), stage


def test_chunks_that_do_not_divide_the_steps_are_one_clear_error():
    with pytest.raises(UsageError, match="multiple of the 5 chunks, got 24"):
        Diagonal(24, 5, 2)


def test_a_shift_moves_a_whole_sample_by_two_fifths_of_a_level():
    diagonal = Diagonal(24, 6, 2)
    shift = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    window = Window(1, 4, 2, overlap=True)
    moved = progressive(diagonal, window, shift) - diagonal.timesteps(2)[2:10]
    assert (moved - moved[:, :1]).abs().max() < 1e-3
    assert moved[:, 0].std().item() == pytest.approx(0.4 * 1000 / 24, rel=0.02)
    assert moved[:, 0].mean().item() == pytest.approx(0, abs=0.5)


def test_a_shift_ends_at_clean_and_just_below_noise():
    diagonal = Diagonal(24, 6, 2)
    for stage in range(4):
        times = progressive(diagonal, Window(0, 6, stage, overlap=True), torch.tensor([-9.0, 0.0, 9.0]))
        assert times.min() >= 0
        assert times.max() <= 999
    assert progressive(diagonal, Window(0, 6, 0, overlap=True), torch.zeros(1))[0, -1] == 999


def test_the_warp_is_the_samplers():
    times = torch.linspace(0, 1000, 31)
    torch.testing.assert_close(warped(times, 3.7) / 1000, warped_sigmas(30, 3.7))
    torch.testing.assert_close(warped(times, 1.0), times)


def test_the_plain_method_has_one_level_a_sample_all_equally_likely():
    times = uniform(14, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(times, times[:, :1].expand(-1, 14))
    assert times[:, 0].quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([250, 500, 750], abs=25)


def test_half_of_the_plain_samples_keep_clean_frames_but_never_all():
    times = some_clean(torch.full((8000, 14), 500.0), random.Random(0))
    clean = times == 0
    assert set(times.unique().tolist()) == {0.0, 500.0}
    assert clean.any(1).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert clean.sum(1).max() <= 7
    changes = (clean[:, 1:] != clean[:, :-1]).sum(1)  # runs of clean frames at an end change once
    front = clean[:, 0] & ~clean[:, -1] & (changes == 1)
    back = clean[:, -1] & ~clean[:, 0] & (changes == 1)
    both = clean[:, 0] & clean[:, -1] & (changes == 2)
    found = [rows.float().mean().item() for rows in (front, back, both)]
    assert found == pytest.approx([0.25, 0.10, 0.05], abs=0.03)
