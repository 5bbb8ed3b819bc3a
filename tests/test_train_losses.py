"""Training against recorded losses and gradients."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.models.opensora.config import timestep_shift
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.training.levels import (
    Diagonal,
    WindowStage,
    progressive_timesteps,
    shift_timesteps,
)
from pavdm_cli.training.losses import Batch, add_noise, predict_velocity, velocity_loss

GOLDEN = Path(__file__).parent / "golden"
SMALL = STDiTConfig(hidden=64, depth=2, heads=4, in_channels=4, out_channels=8, text_width=32, text_length=12)
Recording = dict[str, Tensor]


def recorded(name: str) -> Recording:
    """A recording with latents as (B, T, C, H, W)."""
    values = load_file(GOLDEN / f"{name}.safetensors")
    return {
        key: value.transpose(1, 2) if value.ndim == 5 and "grad" not in key else value for key, value in values.items()
    }


def shift_keep1(run: Recording) -> Batch:
    """Progressive levels at a random stage with one offset per sample, after a clean chunk without a loss."""
    stage = json.loads((GOLDEN / "index.json").read_text())["train_shift_keep1.safetensors"]["python_randint"][0]
    times = progressive_timesteps(Diagonal(6, 3, 2), WindowStage(0, 3, stage, has_context=True), run["noise.0"][:, 0])
    clean = (0, 0, 0, 0, 0, 0, 2, 0)  # two frames in front
    loss_mask, noise = torch.ones_like(times), run["noise.1"]
    pad = torch.nn.functional.pad
    return Batch(run["x_start"], pad(noise, clean), pad(times, (2, 0)), pad(loss_mask, (2, 0)))


def linear(run: Recording) -> Batch:
    """One level per frame, evenly spaced."""
    times = Diagonal(6, 6, 1).timesteps(0).expand(2, -1)
    return Batch(run["x_start"], run["noise.0"], times, torch.ones_like(times))


def base_mask(run: Recording) -> Batch:
    """One level per sample, shifted towards noise; masked frames are clean and have no loss."""
    times, is_noisy = shift_timesteps(run["rand.0"] * 1000, timestep_shift(240, 424, 119)), run["mask"]
    return Batch(run["x_start"], run["noise.0"], torch.where(is_noisy, times[:, None], 0.0), is_noisy.float())


@dataclass
class StepRecord:
    """Input and output of the model in one step, and the loss of each sample."""

    z: Tensor
    out: Tensor
    loss: Tensor
    model: STDiT


def run_training(batch: Batch, run: Recording) -> StepRecord:
    """One training step with the recorded weights."""
    model = STDiT(SMALL)
    model.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    record: list[Tensor] = []
    model.register_forward_hook(lambda _m, inputs, out: record.extend([inputs[0], out]))
    text = model.encode_text(run["y"][:, 0], run["text_mask"])
    size = (float(run["arg.height"][0]), float(run["arg.width"][0]))
    loss = velocity_loss(predict_velocity(model, text, batch, run["arg.fps"], size), batch)
    loss.mean().backward()
    return StepRecord(record[0], record[1], loss, model)


CASES = {"train_shift_keep1": shift_keep1, "train_linear": linear, "train_base_mask": base_mask}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Recording, Batch, StepRecord]:
    run = recorded(request.param)
    batch = CASES[request.param](run)
    return run, batch, run_training(batch, run)


def test_timesteps_and_noised_latents_match_the_recording(case):
    run, batch, record = case
    times = run["t_model"] if run["t_model"].ndim == 2 else torch.where(run["mask"], run["t_model"][:, None], 0.0)
    torch.testing.assert_close(batch.timesteps, times, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(record.z, run["x_t"], rtol=1e-6, atol=1e-6)


def test_outputs_match_the_recording_under_the_loss_mask(case):
    run, batch, record = case
    loss_mask = batch.loss_mask.bool()
    torch.testing.assert_close(record.out[loss_mask], run["model_out"][:, :, :4][loss_mask], rtol=0, atol=1e-4)


def test_losses_match_the_recording(case):
    run, _, record = case
    torch.testing.assert_close(record.loss.detach(), run["loss"], rtol=1e-5, atol=0)


def test_gradients_match_the_recording(case):
    run, _, record = case
    parameters = dict(sorted(record.model.named_parameters()))
    norms = [torch.tensor(-1.0) if p.grad is None else p.grad.norm() for p in parameters.values()]
    torch.testing.assert_close(torch.stack(norms), run["gradnorm"], rtol=1e-4, atol=0)
    full = {key.removeprefix("grad."): value for key, value in run.items() if key.startswith("grad.")}
    assert len(full) == 5
    for name, gradient in full.items():
        assert (parameters[name].grad - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_the_loss_is_zero_for_the_exact_velocity():
    clean, noise = torch.randn(2, 2, 5, 3, 2, 2).unbind(0)
    loss_mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).float()
    batch = Batch(clean, noise, torch.zeros(2, 5), loss_mask)
    velocity = clean - noise
    assert velocity_loss(velocity, batch).tolist() == [0, 0]
    spoiled = velocity + (1 - loss_mask)[:, :, None, None, None]
    assert velocity_loss(spoiled, batch).tolist() == [0, 0]
    off = velocity + loss_mask[:, :, None, None, None] * torch.tensor([2.0, 3.0])[:, None, None, None, None]
    torch.testing.assert_close(velocity_loss(off, batch), torch.tensor([4.0, 9.0]))


def test_timestep_0_is_clean_and_1000_is_noise():
    clean, noise = torch.randn(2, 1, 3, 2, 2, 2).unbind(0)
    noisy = add_noise(clean, noise, torch.tensor([[0.0, 250.0, 1000.0]]))
    assert torch.equal(noisy[:, 0], clean[:, 0])
    torch.testing.assert_close(noisy[:, 1], 0.75 * clean[:, 1] + 0.25 * noise[:, 1])
    assert torch.equal(noisy[:, 2], noise[:, 2])
