"""One training batch, as a function of the step alone, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.train.levels import Diagonal, draw_window, progressive, some_clean, uniform
from pavdm_cli.train.losses import Batch
from pavdm_cli.train.pool import Clips, captions

CAPTION_DROPOUT = 0.1
METHODS = ("base", "pa", "rw")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How batches are drawn: method base, pa or rw; the diagonal; how many windows a step; how worn overlaps are."""

    method: str
    diagonal: Diagonal
    windows: int = 16
    seed: int = 0
    wear: float = 0.15


def draw_batch(recipe: Recipe, clips: Clips, pool: Tensor, step: int) -> tuple[Batch, list[str], Tensor]:
    """The batch of a step, its captions, and which of them are dropped (bool, (B,))."""
    draw = random.Random(f"{recipe.seed}/{recipe.method}/{step}")
    noise_draw = torch.Generator().manual_seed(draw.getrandbits(62))
    indices = [draw.randrange(len(pool)) for _ in range(recipe.windows)]
    times, clean = _times(recipe, draw, noise_draw)
    latents = _cut(pool, indices, times.shape[1], draw)
    latents[:, :clean] += wear(latents[:, :clean], recipe.wear, noise_draw)
    noise = torch.randn(latents.shape, generator=noise_draw)
    counted = torch.ones_like(times)
    if recipe.method == "pa":
        counted[:, :clean] = 0
    elif recipe.method == "base":
        counted = (times > 0).to(times)
    dropped = torch.tensor([draw.random() < CAPTION_DROPOUT for _ in indices])
    return Batch(latents, noise, times, counted, clean), captions(clips, indices, draw), dropped


def wear(overlap: Tensor, most: float, draw: torch.Generator) -> Tensor:  # (B, C, ...), same shape out
    """Noise for the clean overlap, up to `most` in half of the samples: what a model made itself is never quite clean.

    Without it errors pile up in a long video, since an overlap taken from a real clip is always right.
    """
    strength = most * (2 * torch.rand(len(overlap), generator=draw) - 1).clamp_min(0)
    return strength.view(-1, *[1] * (overlap.dim() - 1)) * torch.randn(overlap.shape, generator=draw)


def _times(recipe: Recipe, draw: random.Random, noise_draw: torch.Generator) -> tuple[Tensor, int]:
    """Timesteps (B, T) of the window's latents, and how many at its front are the clean overlap."""
    diagonal = recipe.diagonal
    if recipe.method == "pa":
        window = draw_window(diagonal, draw)
        clean = diagonal.chunk if window.overlap else 0
        noisy = progressive(diagonal, window, torch.randn(recipe.windows, generator=noise_draw))
        return torch.cat([noisy.new_zeros(len(noisy), clean), noisy], dim=1), clean
    times = uniform(diagonal.chunk * (diagonal.chunks + 1), recipe.windows, noise_draw)
    return (some_clean(times, draw) if recipe.method == "base" else times), 0


def _cut(pool: Tensor, indices: list[int], length: int, draw: random.Random) -> Tensor:
    """A run of latents from anywhere in each clip, float32 (B, length, C, h, w)."""
    starts = [draw.randint(0, pool.shape[1] - length) for _ in indices]
    return torch.stack([pool[i, s : s + length] for i, s in zip(indices, starts, strict=True)]).float()
