"""Guidance distillation: the targets of the student, and the guidance scale stored with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from support.models import MODELS
from support.tiny import POCKET, randomized
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.sampling.denoiser import FunctionDenoiser, batched_cfg
from pavdm_cli.training.losses import Batch, add_noise, predict_velocity, velocity_loss
from pavdm_cli.training.pocket import runs
from pavdm_cli.training.pocket.distillation import LOW_NOISE_GUIDANCE, Teacher, guidance_scale

PROMPTS = ["a red balloon drifting over green hills at sunset", "a yellow boat bobbing on calm water at night"]
NONE, FIRST = torch.tensor([False, False]), torch.tensor([True, False])
FPS = torch.tensor(8.0)
SHAPE = (2, 4, 4, 4, 6)


@pytest.fixture(scope="module")
def teacher() -> Pocket:
    return randomized(Pocket(POCKET)).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(SHAPE, generator=rng, dtype=torch.float64) for _ in range(2))
    timesteps = torch.tensor([[0.0, 200, 500, 900]] * 2, dtype=torch.float64)
    return Batch(latents, noise, timesteps, (timesteps > 0).double(), context=1)


def predict(model: Pocket, batch: Batch, dropped: Tensor) -> Tensor:
    return predict_velocity(model.stdit, model.encode_prompts(PROMPTS, dropped), batch, FPS.double())


def distance(student: Pocket, teacher: Teacher, batch: Batch) -> Tensor:
    return velocity_loss(predict(student, batch, NONE), batch, teacher.velocity(PROMPTS, NONE, batch, FPS.double()))


def test_a_perfect_student_has_no_loss(teacher, batch):
    loss = distance(teacher, Teacher(teacher, 1.0), batch)
    assert loss.max() < 1e-20


def test_the_distillation_target_equals_guided_sampling_with_much_noise(teacher, batch):
    """The velocity of the sampler's CFG wrapper for the same two passes; little guidance at low noise."""
    both = FunctionDenoiser(
        lambda context, level: None,
        lambda z, levels, kv_cache: torch.cat([predict(teacher, batch, NONE), predict(teacher, batch, ~NONE)]),
    )
    noisy = add_noise(batch.latents, batch.noise, batch.timesteps)
    much, little = (batched_cfg(both, scale)(noisy, torch.zeros(4), None) for scale in (2.5, LOW_NOISE_GUIDANCE))
    target = Teacher(teacher, 2.5).velocity(PROMPTS, NONE, batch, FPS.double())
    torch.testing.assert_close(target[:, 3], much[:, 3])
    torch.testing.assert_close(target[:, 1:3], little[:, 1:3])


def test_guidance_rises_with_the_noise():
    scales = guidance_scale(3.0, torch.arange(0.0, 1001.0, 50)[None])[0]
    assert (scales.diff() >= 0).all()
    assert (scales[0], scales[-1]) == (LOW_NOISE_GUIDANCE, 3.0)
    assert torch.equal(guidance_scale(1.0, torch.rand(2, 5) * 1000), torch.ones(2, 5))


def test_dropped_prompts_are_distilled_without_guidance(teacher, batch):
    weak, strong = (Teacher(teacher, scale).velocity(PROMPTS, FIRST, batch, FPS.double()) for scale in (1.0, 4.0))
    assert torch.equal(weak[0], strong[0])
    assert (weak[1] - strong[1]).abs().max() > 1e-3


def test_context_has_no_loss_and_the_teacher_no_gradient(teacher, batch):
    student = randomized(Pocket(POCKET), seed=4).double()
    frozen = Teacher(teacher, 1.5)
    loss = distance(student, frozen, batch)
    loss.sum().backward()
    assert student.stdit.final_layer.linear.weight.grad is not None
    assert all(weight.grad is None for weight in teacher.parameters())
    target = frozen.velocity(PROMPTS, NONE, batch, FPS.double())
    error = (predict(student, batch, NONE) - target).square().mean(dim=(2, 3, 4))[:, 1:].mean(dim=1)
    torch.testing.assert_close(loss, error)


def test_training_moves_the_student_towards_the_teacher(teacher, batch):
    student = randomized(Pocket(POCKET)).double()
    optimizer, losses = torch.optim.Adam(student.parameters(), 2e-3), []
    for _ in range(60):
        loss = distance(student, Teacher(teacher, 1.5), batch).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def fail_if_rendered(label: str, total: int) -> NoReturn:
    raise AssertionError("refused before any clip is rendered")


def settings(folder: Path, init: Path | None) -> runs.TrainOptions:
    return runs.TrainOptions(folder, steps=1, learning_rate=0.1, batch_size=1, init=init)


def test_distilled_weights_cannot_be_a_teacher(tmp_path):
    path = checkpoint.save(randomized(Pocket(POCKET)), tmp_path / "denoiser.safetensors", {"guided": 1.5})
    with pytest.raises(UsageError, match=r"already distilled, for a guidance scale of 1\.5"):
        runs.denoiser_task(settings(tmp_path, path), runs.Objective("pa", 1.5), None, 1, fail_if_rendered)
    with pytest.raises(UsageError, match="needs a teacher"):
        runs.denoiser_task(settings(tmp_path, None), runs.Objective("pa", 1.5), None, 1, fail_if_rendered)


def test_the_bundled_weights_have_the_declared_guidance():
    spec = MODELS["pocket"]
    assert (
        checkpoint.training_metadata(spec.folder / DENOISER_FILE)["guided"] == spec.distilled_guidance == spec.guidance
    )
