"""Training pocket's VAE on pairs of frames of the painted world, and on the change between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import sample_scene

OBJECT_WEIGHT = 6.0  # of object pixels
LATENT_NOISE = 0.04  # standard deviation, which the decoder learns to ignore
MOTION_WEIGHT = 2.0  # of errors in the change from frame to frame: otherwise frames flicker


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """How training frames are rendered; fps is that of the two frames of a pair."""

    size: tuple[int, int] = (64, 96)
    detail: float = 0.3
    batch: int = 16
    fps: float = 8.0
    first_seed: int = 1_000_000


def batch(frames: FrameSampling, step: int, device: torch.device | str = "cpu") -> SceneFrames:
    """The frames of a training step, (batch, 2, ...): a function of the step alone, so training resumes exactly."""
    start = frames.first_seed + step * frames.batch
    scenes = [sample_scene(start + i) for i in range(frames.batch)]
    rng = torch.Generator().manual_seed(start)
    seconds = torch.rand(frames.batch, 1, generator=rng) * 60
    seconds = torch.cat([seconds, seconds + 1 / frames.fps], dim=1)
    return render(scenes, seconds.to(device), canvas(frames.size, frames.detail, device))


def loss(vae: PocketVAE, scenes: SceneFrames, rng: torch.Generator) -> Tensor:
    """Absolute and squared error of frames, and absolute error of changes, with weighted object pixels."""
    frames, mask = scenes.frames.flatten(0, 1), scenes.mask
    codes = encode(vae, frames.contiguous(memory_format=torch.channels_last))
    noise = torch.randn(codes.shape, generator=rng).to(codes)
    error = (vae.decode_frames(codes + LATENT_NOISE * noise) - frames).view_as(scenes.frames)
    change = error.diff(dim=1)
    return _weighted(error.abs() + 4 * error.square(), mask) + MOTION_WEIGHT * _weighted(change.abs(), mask[:, 1:])


def encode(vae: PocketVAE, frames: Tensor) -> Tensor:
    """As `PocketVAE.encode_frames`; a frozen encoder also keeps its batch statistics, so that latents do not change."""
    if next(vae.encoder.parameters()).requires_grad:
        return vae.encode_frames(frames)
    vae.normalise.eval()
    with torch.no_grad():
        return vae.encode_frames(frames)


def _weighted(cost: Tensor, mask: Tensor) -> Tensor:  # (B, n, 3, H, W), (B, n, H, W)
    weight = (1 + (OBJECT_WEIGHT - 1) * mask)[:, :, None]
    return (cost * weight).mean() / weight.mean()
