"""Training the pocket codec on pairs of frames of the painted world, a frame at a time, and on how they change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import sample_scene

OBJECT_WEIGHT = 6.0  # how much more an object's pixel counts
LATENT_NOISE = 0.04  # the decoder learns to forgive this much
MOTION_WEIGHT = 2.0  # of errors in what changes from one frame to the next: else each frame flickers in its own way


@dataclass(frozen=True, slots=True)
class Frames:
    """Where training frames come from: sizes, detail, scenes a step, the rate at which a pair follows."""

    size: tuple[int, int] = (64, 96)
    detail: float = 0.3
    batch: int = 16
    fps: float = 8.0
    first_seed: int = 1_000_000


def batch(frames: Frames, step: int, device: torch.device | str = "cpu") -> SceneFrames:
    """The frames of one training step: a function of the step alone, so training resumes exactly. (batch, 2, ...)."""
    start = frames.first_seed + step * frames.batch
    scenes = [sample_scene(start + i) for i in range(frames.batch)]
    draw = torch.Generator().manual_seed(start)
    seconds = torch.rand(frames.batch, 1, generator=draw) * 60
    seconds = torch.cat([seconds, seconds + 1 / frames.fps], dim=1)
    return render(scenes, seconds.to(device), canvas(frames.size, frames.detail, device))


def loss(codec: PocketVAE, picture: SceneFrames, draw: torch.Generator) -> Tensor:
    """Absolute plus squared error of frames, absolute error of changes; object pixels weighted, latents a bit noisy."""
    frames, mask = picture.frames.flatten(0, 1), picture.mask
    codes = code(codec, frames.contiguous(memory_format=torch.channels_last))
    noise = torch.randn(codes.shape, generator=draw).to(codes)
    error = (codec.decode_frames(codes + LATENT_NOISE * noise) - frames).view_as(picture.frames)
    change = error.diff(dim=1)
    return _weighted(error.abs() + 4 * error.square(), mask) + MOTION_WEIGHT * _weighted(change.abs(), mask[:, 1:])


def code(codec: PocketVAE, frames: Tensor) -> Tensor:
    """As `codec.code`; a frozen encoder keeps its statistics too, so that its latents stay what they are."""
    if next(codec.encoder.parameters()).requires_grad:
        return codec.encode_frames(frames)
    codec.normalise.eval()
    with torch.no_grad():
        return codec.encode_frames(frames)


def _weighted(cost: Tensor, mask: Tensor) -> Tensor:  # (B, n, 3, H, W), (B, n, H, W)
    weight = (1 + (OBJECT_WEIGHT - 1) * mask)[:, :, None]
    return (cost * weight).mean() / weight.mean()
