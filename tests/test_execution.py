"""Every optimization can be switched off, has an effect when on, and never changes the video."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from support.exact import build_solver
from support.models import EXECUTION, MODELS
from support.tiny import tiny_pocket, tiny_runner
from torch import Tensor

from pavdm_cli.models.execution import REFERENCE, ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, seeded_noise
from pavdm_cli.sampling.schedule import METHODS, pa
from pavdm_kernels import kernels_enabled

SPEC = replace(MODELS["pocket"], name="tiny", folder=Path(), size=(16, 24), window=8, chunk=2, steps=8)
SCHEDULE = pa(8, 8, 2)
SWITCHES = ("cache_modulation", "cache_text", "context_cache", "fused_kernels")


@pytest.fixture(scope="module")
def model() -> ModelRunner:
    pocket = tiny_pocket().double().requires_grad_(False)
    return tiny_runner(SPEC, pocket)


def video(model: ModelRunner, execution: ExecutionConfig, method: str = "pa") -> Tensor:
    schedule, sigmas = METHODS[method](8, 8, 2), linear_sigmas(8).double()
    denoiser = model.denoiser("a red ball over hills", schedule, noise_levels(sigmas), 2.0, execution)
    return torch.cat(
        list(sample(schedule, denoiser, seeded_noise(1, model.noise_shape()), build_solver(sigmas), chunks=3)), 1
    )


def off(*names: str) -> ExecutionConfig:
    return replace(EXECUTION, **{name: getattr(REFERENCE, name) for name in names})


@pytest.mark.parametrize("switched", [(name,) for name in SWITCHES] + [SWITCHES], ids=lambda names: "+".join(names))
def test_what_is_switched_off_changes_no_video(model: ModelRunner, switched: tuple[str, ...]) -> None:
    torch.testing.assert_close(video(model, off(*switched)), video(model, EXECUTION), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_plain_is_the_same_video_by_every_method(model: ModelRunner, method: str) -> None:
    torch.testing.assert_close(video(model, REFERENCE, method), video(model, EXECUTION, method), rtol=0, atol=1e-9)


def calls(model: ModelRunner, execution: ExecutionConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a short video asks for each of a video's constants, and works in plain torch."""
    counts = dict.fromkeys(("embed_timesteps", "encode_text", "prefill", "plain steps"), 0)

    def counted(name: str):
        plain = getattr(STDiT, name)

        def call(self, *arguments, **named):
            counts[name] += 1
            return plain(self, *arguments, **named)

        return call

    for name in ("embed_timesteps", "encode_text", "prefill"):
        monkeypatch.setattr(STDiT, name, counted(name))
    hook = model.transformer.register_forward_hook(
        lambda *_: counts.update({"plain steps": counts["plain steps"] + (not kernels_enabled())})
    )
    video(model, execution)
    hook.remove()
    return counts


def test_each_switch_moves_its_own_work_into_the_step(model: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SCHEDULE.total_steps(3)
    fast = {"embed_timesteps": 1, "encode_text": 1, "prefill": 2, "plain steps": 0}
    assert calls(model, EXECUTION, monkeypatch) == fast
    shifts = 2
    expected = {
        "cache_modulation": {"embed_timesteps": steps + shifts},
        "cache_text": {"encode_text": steps + shifts},
        "context_cache": {"prefill": 0},
        "fused_kernels": {"plain steps": steps},
    }
    for name, changed in expected.items():
        with monkeypatch.context() as patch:
            assert calls(model, off(name), patch) == fast | changed


def test_plain_leaves_nothing_on() -> None:
    on = [field.name for field in fields(ExecutionConfig) if getattr(REFERENCE, field.name) is True]
    assert on == []
    assert kernels_enabled()
