"""One training batch, as a function of the step alone, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pavdm_cli.training.levels import (
    USUAL_MOMENTS,
    Diagonal,
    Moments,
    draw_window,
    progressive,
    some_clean,
    uniform,
    warped,
)
from pavdm_cli.training.losses import Batch
from pavdm_cli.training.pocket.latent_pool import Clips, captions

CAPTION_DROPOUT = 0.1
METHODS = ("base", "pa", "rw")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How batches are drawn: method base, pa or rw; the diagonal; how many windows a step; how worn overlaps are.

    ratio: pushes timesteps towards noise, as sampling does; group: clips are cut at multiples of it, where their codec
    begins anew; causal: over time clean latents see only one another; moments: how often a window is in which state.
    """

    method: str
    diagonal: Diagonal
    windows: int = 16
    seed: int = 0
    wear: float = 0.15
    ratio: float = 1.0
    group: int = 1
    causal: bool = True
    moments: Moments = USUAL_MOMENTS


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the chances of one batch come from, taken in a fixed order: two batches' are never mixed."""

    plain: random.Random
    normal: torch.Generator


@dataclass(frozen=True, slots=True)
class Cut:
    """What a batch shows: runs of latents of some clips, at their timesteps."""

    clips: list[int]
    starts: list[int]
    times: Tensor  # (B, T)
    clean: int  # of them, at the front
    after: int = 0  # and at the back, in a window that rejoins a video

    @property
    def runs(self) -> list[tuple[int, slice]]:
        """Each sample's clip, and which of its latents."""
        length = self.times.shape[1]
        return [(clip, slice(start, start + length)) for clip, start in zip(self.clips, self.starts, strict=True)]


class Drawn(NamedTuple):
    """A batch and what is said of it."""

    batch: Batch
    prompts: list[str]
    dropped: Tensor  # bool (B,): whose captions are not shown
    clips: list[int]


def draws(recipe: Recipe, step: int) -> Draws:
    """The chances of a batch: a function of its number."""
    plain = random.Random(f"{recipe.seed}/{recipe.method}/{step}")
    return Draws(plain, torch.Generator().manual_seed(plain.getrandbits(62)))


def draw_cut(recipe: Recipe, count: int, length: int, chance: Draws) -> Cut:
    """Runs from anywhere in any of `count` clips of `length` latents."""
    clips = [chance.plain.randrange(count) for _ in range(recipe.windows)]
    times, clean, after = _times(recipe, chance)
    places = (length - times.shape[1]) // recipe.group
    return Cut(clips, [recipe.group * chance.plain.randint(0, places) for _ in clips], times, clean, after)


def fill(recipe: Recipe, cut: Cut, latents: Tensor, chance: Draws) -> Batch:
    """The batch of a cut, its latents (B, T, C, H, W) given."""
    latents[:, : cut.clean] += wear(latents[:, : cut.clean], recipe.wear, chance.normal)
    noise = torch.randn(latents.shape, generator=chance.normal)
    counted = torch.ones_like(cut.times)
    if recipe.method == "pa":
        counted[:, : cut.clean] = 0
        counted[:, counted.shape[1] - cut.after :] = 0
    elif recipe.method == "base":
        counted = (cut.times > 0).to(cut.times)
    return Batch(latents, noise, cut.times, counted, cut.clean if recipe.causal else 0)


def dropped(count: int, chance: Draws) -> Tensor:
    """Which of the samples go without their caption, bool (B,)."""
    return torch.tensor([chance.plain.random() < CAPTION_DROPOUT for _ in range(count)])


def draw_batch(recipe: Recipe, clips: Clips, pool: Tensor, step: int) -> Drawn:
    """The batch of a step, of clips whose latents are in the pool."""
    chance = draws(recipe, step)
    cut = draw_cut(recipe, len(pool), pool.shape[1], chance)
    latents = torch.stack([pool[clip, run] for clip, run in cut.runs]).float()
    batch = fill(recipe, cut, latents, chance)
    without = dropped(len(latents), chance)
    return Drawn(batch, captions(clips, cut.clips, chance.plain), without, cut.clips)


def wear(overlap: Tensor, most: float, draw: torch.Generator) -> Tensor:  # (B, C, ...), same shape out
    """Noise for the clean overlap, up to `most` in half of the samples: what a model made itself is never quite clean.

    Without it errors pile up in a long video, since an overlap taken from a real clip is always right.
    """
    strength = most * (2 * torch.rand(len(overlap), generator=draw) - 1).clamp_min(0)
    return strength.view(-1, *[1] * (overlap.dim() - 1)) * torch.randn(overlap.shape, generator=draw)


def _times(recipe: Recipe, chance: Draws) -> tuple[Tensor, int, int]:
    """Timesteps (B, T) of the window's latents, and how many at its front and at its back are clean."""
    diagonal = recipe.diagonal
    if recipe.method == "pa":
        window = draw_window(diagonal, chance.plain, recipe.moments)
        clean, after = (diagonal.chunk if shown else 0 for shown in (window.overlap, window.rejoins))
        noisy = progressive(diagonal, window, torch.randn(recipe.windows, generator=chance.normal))
        times = nn.functional.pad(warped(noisy, recipe.ratio), (clean, after))
        return times, clean, after
    times = uniform(diagonal.chunk * (diagonal.chunks + 1), recipe.windows, chance.normal)
    times = warped(times, recipe.ratio)
    return (some_clean(times, chance.plain) if recipe.method == "base" else times), 0, 0
