"""Training pocket's VAE on pairs of frames of the rendered world, the frame between them, and the change over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import sample_scene

OBJECT_WEIGHT = 6.0  # of object pixels
LATENT_NOISE = 0.04  # standard deviation, which the decoder learns to ignore
MOTION_WEIGHT = 2.0  # of errors in the change from frame to frame: otherwise frames flicker
CODED_WEIGHT = 0.5  # of frames of the coded size, relative to those of twice the size


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """How training frames are rendered; size and fps are those of the coded frames."""

    size: tuple[int, int] = CODED_SIZE
    detail: float = 0.3
    batch: int = 16
    fps: float = CODED_FPS
    first_seed: int = 1_000_000


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Pairs of frames in both sizes; the large ones with the frame between them."""

    coded: SceneFrames  # (B, 2, ...)
    large: SceneFrames  # (B, 3, ...), twice the height and width


def batch(frames: FrameSampling, step: int, device: torch.device | str = "cpu") -> FrameBatch:
    """The frames of a training step: a function of the step alone, so training resumes exactly."""
    start = frames.first_seed + step * frames.batch
    rng = torch.Generator().manual_seed(start)
    seconds = torch.rand(frames.batch, 1, generator=rng) * 60
    return render_pairs(range(start, start + frames.batch), seconds, frames, device)


def render_pairs(
    seeds: range, seconds: Tensor, frames: FrameSampling, device: torch.device | str = "cpu"
) -> FrameBatch:
    """The pairs of the scenes of some seeds that start at the given times, (B, 1)."""
    scenes, (height, width) = [sample_scene(seed) for seed in seeds], frames.size
    times = (seconds + torch.arange(3) / (2 * frames.fps)).to(device)
    large = render(scenes, times, canvas((2 * height, 2 * width), frames.detail, device))
    return FrameBatch(render(scenes, times[:, ::2], canvas(frames.size, frames.detail, device)), large)


def loss(vae: PocketVAE, frames: FrameBatch, rng: torch.Generator) -> Tensor:
    """Absolute and squared error of frames, and absolute error of changes, with weighted object pixels."""
    codes = encode(vae, frames.coded.frames.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    noise = torch.randn(codes.shape, generator=rng).to(codes)
    small, large = decode(vae, codes + LATENT_NOISE * noise)
    return frame_loss(large - frames.large.frames, frames.large.mask) + CODED_WEIGHT * frame_loss(
        small - frames.coded.frames, frames.coded.mask
    )


def decode(vae: PocketVAE, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Frames of pairs of codes (2B, ...): small ones (B, 2, ...), and large ones with that between them (B, 3, ...)."""
    pairs = codes.unflatten(0, (-1, 2))  # type: ignore[no-untyped-call]
    first, last = pairs.unbind(1)
    triples = torch.stack([first, (first + last) / 2, last], dim=1).flatten(0, 1)
    small = vae.decode_frames(codes.contiguous(memory_format=torch.channels_last))
    large = vae.decode_large_frames(triples.contiguous(memory_format=torch.channels_last))
    return small.view(len(pairs), 2, *small.shape[1:]), large.view(len(pairs), 3, *large.shape[1:])


def frame_loss(error: Tensor, mask: Tensor) -> Tensor:
    """The loss of errors (B, n, 3, H, W) with object masks (B, n, H, W)."""
    change = error.diff(dim=1)
    return _weighted_mean(error.abs() + 4 * error.square(), mask) + MOTION_WEIGHT * _weighted_mean(
        change.abs(), mask[:, 1:]
    )


def encode(vae: PocketVAE, frames: Tensor) -> Tensor:
    """As `PocketVAE.encode_frames`; a frozen encoder also keeps its batch statistics, so that latents do not change."""
    if next(vae.encoder.parameters()).requires_grad:
        return vae.encode_frames(frames)
    vae.normalise.eval()
    with torch.no_grad():
        return vae.encode_frames(frames)


def _weighted_mean(cost: Tensor, mask: Tensor) -> Tensor:  # (B, n, 3, H, W), (B, n, H, W)
    weight = (1 + (OBJECT_WEIGHT - 1) * mask)[:, :, None]
    return (cost * weight).mean() / weight.mean()


@torch.no_grad()
def reconstruction_psnr(vae: PocketVAE, frames: FrameBatch) -> tuple[tuple[float, float], tuple[float, float]]:
    """PSNR in dB over all pixels and over object pixels, of frames of the coded size and of large ones."""
    small, large = decode(vae, vae.encode_frames(frames.coded.frames.flatten(0, 1)))
    return _psnr(small, frames.coded), _psnr(large, frames.large)


def _psnr(decoded: Tensor, scenes: SceneFrames) -> tuple[float, float]:
    error = (decoded.clamp(0, 1) - scenes.frames).square().mean(dim=2)
    return _decibel(error.mean()), _decibel(error[scenes.mask > 0.5].mean())


def _decibel(error: Tensor) -> float:
    return float(-10 * error.clamp_min(1e-12).log10())
