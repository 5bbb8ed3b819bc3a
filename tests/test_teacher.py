"""Guidance learnt from a teacher: what is shown to the student, and what its weights say of it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from support.tiny import POCKET, randomised
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.specs import MODELS
from pavdm_cli.sampling.denoiser import FunctionDenoiser, batched_cfg
from pavdm_cli.training.losses import Batch, noised, velocity_loss, window_velocity
from pavdm_cli.training.pocket import runs
from pavdm_cli.training.pocket.distillation import Teacher

PROMPTS = ["a red balloon drifting over green hills at sunset", "a yellow boat bobbing on calm water at night"]
NONE, FIRST = torch.tensor([False, False]), torch.tensor([True, False])
FPS = torch.tensor(8.0)
SHAPE = (2, 4, 4, 4, 6)


@pytest.fixture(scope="module")
def teacher() -> Pocket:
    return randomised(Pocket(POCKET)).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    draw = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(SHAPE, generator=draw, dtype=torch.float64) for _ in range(2))
    times = torch.tensor([[0.0, 200, 500, 900]] * 2, dtype=torch.float64)
    return Batch(latents, noise, times, (times > 0).double(), clean=1)


def passed(model: Pocket, batch: Batch, without: Tensor) -> Tensor:
    return window_velocity(model.stdit, model.read(PROMPTS, without), batch, FPS.double())


def distance(student: Pocket, teacher: Teacher, batch: Batch) -> Tensor:
    return velocity_loss(passed(student, batch, NONE), batch, teacher.velocity(PROMPTS, NONE, batch, FPS.double()))


def test_a_student_that_guides_itself_as_its_teacher_does_has_nothing_to_learn(teacher, batch):
    loss = distance(teacher, Teacher(teacher, 1.0), batch)
    assert loss.max() < 1e-20


def test_what_is_learnt_is_what_sampling_with_guidance_shows(teacher, batch):
    """The velocity that the sampler's own wrapper makes of the same two passes."""
    both = FunctionDenoiser(
        lambda overlap, level: None,
        lambda z, levels, memory: torch.cat([passed(teacher, batch, NONE), passed(teacher, batch, ~NONE)]),
    )
    shown = batched_cfg(both, 2.5)(noised(batch.latents, batch.noise, batch.times), torch.zeros(4), None)
    learnt = Teacher(teacher, 2.5).velocity(PROMPTS, NONE, batch, FPS.double())
    torch.testing.assert_close(learnt, shown)


def test_a_dropped_prompt_is_learnt_without_guidance(teacher, batch):
    weak, strong = (Teacher(teacher, scale).velocity(PROMPTS, FIRST, batch, FPS.double()) for scale in (1.0, 4.0))
    assert torch.equal(weak[0], strong[0])
    assert (weak[1] - strong[1]).abs().max() > 1e-3


def test_the_clean_overlap_carries_no_loss_and_the_teacher_no_gradient(teacher, batch):
    student = randomised(Pocket(POCKET), seed=4).double()
    given = Teacher(teacher, 1.5)
    loss = distance(student, given, batch)
    loss.sum().backward()
    assert student.stdit.final_layer.linear.weight.grad is not None
    assert all(weight.grad is None for weight in teacher.parameters())
    wanted = given.velocity(PROMPTS, NONE, batch, FPS.double())
    error = (passed(student, batch, NONE) - wanted).square().mean(dim=(2, 3, 4))[:, 1:].mean(dim=1)
    torch.testing.assert_close(loss, error)


def test_a_student_comes_nearer_to_its_teacher(teacher, batch):
    student = randomised(Pocket(POCKET)).double()
    step, losses = torch.optim.Adam(student.parameters(), 2e-3), []
    for _ in range(40):
        loss = distance(student, Teacher(teacher, 1.5), batch).mean()
        losses.append(loss.item())
        step.zero_grad()
        loss.backward()
        step.step()
    assert losses[-1] < 0.5 * losses[0]


def rendered(what: str, total: int) -> NoReturn:
    raise AssertionError("refused before any clip is rendered")


def settings(folder: Path, init: Path | None) -> runs.Settings:
    return runs.Settings(folder, steps=1, rate=0.1, batch=1, init=init)


def test_weights_that_guide_already_are_no_teacher(tmp_path):
    path = checkpoint.save(randomised(Pocket(POCKET)), tmp_path / "denoiser.safetensors", {"guided": 1.5})
    with pytest.raises(UsageError, match=r"guidance of 1\.5 in one pass already"):
        runs.denoiser_task(settings(tmp_path, path), runs.Lesson("pa", 1.5), None, 1, rendered)
    with pytest.raises(UsageError, match="needs a teacher"):
        runs.denoiser_task(settings(tmp_path, None), runs.Lesson("pa", 1.5), None, 1, rendered)


def test_the_shipped_weights_give_the_guidance_that_the_table_of_models_says():
    spec = MODELS["pocket"]
    assert checkpoint.about(spec.denoiser)["guided"] == spec.guided == spec.guidance
