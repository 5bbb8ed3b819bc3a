"""Training the pocket codec on single frames of the painted world."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket_codec import PocketCodec
from pavdm_cli.train.paint import Picture, canvas, render
from pavdm_cli.train.world import sample_scene

OBJECT_WEIGHT = 6.0  # how much more an object's pixel counts
LATENT_NOISE = 0.04  # the decoder learns to forgive this much


@dataclass(frozen=True, slots=True)
class Frames:
    """Where training frames come from: sizes, detail, and the first scene seed."""

    size: tuple[int, int] = (64, 96)
    detail: float = 0.3
    batch: int = 32
    first_seed: int = 1_000_000


def batch(frames: Frames, step: int, device: torch.device | str = "cpu") -> Picture:
    """The frames of one training step: a function of the step alone, so training resumes exactly. (batch, 1, ...)."""
    start = frames.first_seed + step * frames.batch
    scenes = [sample_scene(start + i) for i in range(frames.batch)]
    draw = torch.Generator().manual_seed(start)
    seconds = torch.rand(frames.batch, 1, generator=draw) * 60
    return render(scenes, seconds.to(device), canvas(frames.size, frames.detail, device))


def loss(codec: PocketCodec, picture: Picture, draw: torch.Generator) -> Tensor:
    """Absolute plus squared error, object pixels weighted, through slightly noisy latents."""
    frames, mask = picture.frames.flatten(0, 1), picture.mask.flatten(0, 1)
    code = codec.code(frames.contiguous(memory_format=torch.channels_last))
    noise = torch.randn(code.shape, generator=draw).to(code)
    error = codec.picture(code + LATENT_NOISE * noise) - frames
    weight = (1 + (OBJECT_WEIGHT - 1) * mask)[:, None]
    return ((error.abs() + 4 * error.square()) * weight).mean() / weight.mean()
