"""Training tasks of a tiny pocket model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.training.batches import BatchConfig
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.pocket.distillation import Teacher
from pavdm_cli.training.pocket.latent_pool import Clips, Pool
from pavdm_cli.training.pocket.tasks import DenoiserTask, VAETask
from pavdm_cli.training.pocket.vae import FrameSampling
from support.tiny import POCKET, SIZE, VAE_CONFIG, randomized, tiny_vae

RNG = torch.Generator().manual_seed(1)
POOL = Pool(torch.randn(4, 5, 4, 2, 3, generator=RNG).half(), torch.rand(4, 5, 2, 3, generator=RNG).half())


class Quiet:
    """Skips validation and contact sheets, which take most of the time."""

    def validate(self) -> dict[str, float]:
        return {"metric": 1.0}

    def write_sheet(self, path: Path) -> None:
        path.write_bytes(b"")


class TinyVAETask(Quiet, VAETask): ...


class TinyDenoiser(Quiet, DenoiserTask): ...


def vae_task() -> TinyVAETask:
    return TinyVAETask(randomized(PocketVAE(VAE_CONFIG)), FrameSampling(SIZE, batch=1), {})


def denoiser_task(
    method: str = "pa",
    guidance: float | None = None,
    object_weight: float = 0.0,
    precision: str = "fp32",
    **batches: Any,
) -> TinyDenoiser:
    config, clips = (
        BatchConfig(method, Diagonal(4, 2, 1), batch_size=2, **batches),
        Clips(count=4, latents=5, size=SIZE),
    )
    model, teacher = (randomized(Pocket(POCKET)) for _ in range(2))
    optional_teacher = guidance and Teacher(teacher, guidance)
    return TinyDenoiser(model, tiny_vae(), config, clips, POOL, POOL, {}, optional_teacher, object_weight, precision)
