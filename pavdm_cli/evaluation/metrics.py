"""Figures of a video that need no network: how much changes from frame to frame, and how its looks drift."""

from __future__ import annotations

import torch
from torch import Tensor

LOOKS = ("brightness", "contrast", "sharpness", "saturation")


def changes(video: Tensor) -> Tensor:  # (n, 3, H, W) -> (n - 1,)
    """Mean absolute difference of every frame to the next, 0 to 1."""
    return video.diff(dim=0).abs().mean(dim=(1, 2, 3))


def profile(video: Tensor, chunk: int) -> Tensor:  # (n, 3, H, W) -> (chunk,)
    """Mean change after every frame of a chunk: the last one is the change across the joint to the next chunk."""
    change = changes(video)
    whole = change[: len(change) // chunk * chunk]
    return whole.view(-1, chunk).mean(dim=0)


def hop(change: Tensor) -> float:  # (chunk,), a profile
    """Change across joints over change inside chunks: 1 where joints cannot be told."""
    return float(change[-1] / change[:-1].mean().clamp_min(1e-6))


def unevenness(change: Tensor, real: Tensor) -> float:  # (chunk,), (chunk,)
    """How far, at the worst place of a chunk, a profile is from the real one: 0.1 is 10 %."""
    return float((change / real.clamp_min(1e-6) - 1).abs().max())


def looks(video: Tensor) -> Tensor:  # (n, 3, H, W) -> (4,)
    """Mean brightness, contrast, sharpness and saturation of the frames."""
    grey = video.mean(dim=1)
    edges = grey.diff(dim=1).abs().mean() + grey.diff(dim=2).abs().mean()
    colourful = (video.amax(dim=1) - video.amin(dim=1)).mean()
    return torch.stack([grey.mean(), grey.std(dim=(1, 2)).mean(), edges, colourful])


def drift(video: Tensor, span: int) -> Tensor:  # (n, 3, H, W) -> (4,)
    """How the looks of the last `span` frames differ from those of the first, as a share of the first."""
    before, after = looks(video[:span]), looks(video[-span:])
    return (after - before) / before.clamp_min(1e-3)


def z_scores(drifts: Tensor, real: Tensor) -> Tensor:  # (N, 4), (M, 4) -> (N, 4)
    """Drifts in standard deviations of what real videos of the same length do: 1 or 2 is ordinary."""
    return (drifts - real.mean(dim=0)) / real.std(dim=0).clamp_min(1e-6)


def slide(video: Tensor, gap: int = 16, reach: int = 24) -> int:  # (n, 3, H, W)
    """Pixels that the ground goes right in `gap` frames, by matching the lower part of the picture with itself.

    In half of the video's frames where that is fewer. Two seconds at `pocket`'s rate: wide dunes in the dark hardly
    change in less, and the codec's own faint pattern, which stands still, would then count for more.
    """
    ground, gap = video.mean(dim=1)[:, round(0.62 * video.shape[2]) :], min(gap, len(video) // 2)
    return min(range(-reach, reach + 1), key=lambda pixels: (_mismatch(ground, gap, pixels), abs(pixels)))


def _mismatch(ground: Tensor, gap: int, right: int) -> float:  # (n, H, W)
    width = ground.shape[2]
    before = ground[:-gap, :, max(0, -right) : width - max(0, right)]
    after = ground[gap:, :, max(0, right) : width - max(0, -right)]
    return float((after - before).abs().mean())
