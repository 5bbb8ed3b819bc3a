"""Metrics without a network: differences between frames, and drift of appearance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

APPEARANCE = ("brightness", "contrast", "sharpness", "saturation")
FALLING = 5  # pixels: wider than the streaks and flakes of falling rain and snow


def psnr(errors: Sequence[float]) -> float:
    """PSNR in dB of the mean of squared errors of values from 0 to 1."""
    return -10 * math.log10(sum(errors) / len(errors))


def frame_differences(video: Tensor) -> Tensor:  # (n, 3, H, W) -> (n - 1,)
    """Mean absolute difference between consecutive frames, 0 to 1."""
    return video.diff(dim=0).abs().mean(dim=(1, 2, 3))


def profile(video: Tensor, chunk: int) -> Tensor:  # (n, 3, H, W) -> (chunk,)
    """Mean difference after each frame of a chunk; the last is that across the boundary to the next chunk."""
    differences = frame_differences(video)
    complete = differences[: len(differences) // chunk * chunk]
    return complete.view(-1, chunk).mean(dim=0)


def boundary_ratio(profile: Tensor) -> float:  # (chunk,)
    """Difference across chunk boundaries over that inside chunks; 1 if boundaries are invisible."""
    return float(profile[-1] / profile[:-1].mean().clamp_min(1e-6))


def max_relative_deviation(profile: Tensor, real: Tensor) -> float:  # (chunk,), (chunk,)
    """Largest relative deviation of a profile from the real one; 0.1 is 10 %."""
    return float((profile / real.clamp_min(1e-6) - 1).abs().max())


def appearance(video: Tensor) -> Tensor:  # (n, 3, H, W) -> (4,)
    """Mean brightness, contrast, sharpness and saturation of the frames."""
    gray = video.mean(dim=1)
    edges = gray.diff(dim=1).abs().mean() + gray.diff(dim=2).abs().mean()
    saturation = (video.amax(dim=1) - video.amin(dim=1)).mean()
    return torch.stack([gray.mean(), gray.std(dim=(1, 2)).mean(), edges, saturation])


def appearance_drift(video: Tensor, span: int) -> Tensor:  # (n, 3, H, W) -> (4,)
    """Relative change of the appearance from the first `span` frames to the last."""
    before, after = appearance(video[:span]), appearance(video[-span:])
    return (after - before) / before.clamp_min(1e-3)


def z_scores(drifts: Tensor, real: Tensor) -> Tensor:  # (N, 4), (M, 4) -> (N, 4)
    """Drifts in standard deviations of those of real videos of the same length; up to 2 is normal."""
    return (drifts - real.mean(dim=0)) / real.std(dim=0).clamp_min(1e-6)


def ground_shift(video: Tensor, gap: int = 16, reach: int = 24) -> int:  # (n, 3, H, W)
    """Pixels by which the ground moves to the right in `gap` frames, by registering the lower part of the frames.

    The gap is at most half of the video. Its default is two seconds at `pocket`'s rate: in less time, dunes at night
    hardly change, and the faint static pattern of the VAE would dominate. What is narrow and bright, such as rain and
    snowflakes, is removed first: each pixel becomes the darkest of FALLING in its row.
    """
    ground, gap = video.mean(dim=1)[:, round(0.62 * video.shape[2]) :], min(gap, len(video) // 2)
    ground = -torch.nn.functional.max_pool2d(-ground, (1, FALLING), stride=1)
    return min(range(-reach, reach + 1), key=lambda pixels: (_mismatch(ground, gap, pixels), abs(pixels)))


def _mismatch(ground: Tensor, gap: int, right: int) -> float:  # (n, H, W)
    width = ground.shape[2]
    before = ground[:-gap, :, max(0, -right) : width - max(0, right)]
    after = ground[gap:, :, max(0, right) : width - max(0, -right)]
    return float((after - before).abs().mean())
