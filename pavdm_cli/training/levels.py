"""Which noise each latent of a training window gets: one level for all (base, rw), or the diagonal (paper 3.5)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.errors import UsageError

NOISE = 1000.0  # the timestep of pure noise; 0 is clean
LAST = 999.0  # the largest timestep trained with a shift
SHIFT = 0.4  # of the level spacing, standard deviation of the shared shift


@dataclass(frozen=True, slots=True)
class Diagonal:
    """The progressive levels of a window: chunks of latents, in `steps` levels."""

    steps: int
    chunks: int  # P, in a full window
    chunk: int  # C, latents

    def __post_init__(self) -> None:
        if self.steps % self.chunks:
            said = f"training steps must be a multiple of the {self.chunks} chunks, got {self.steps}"
            raise UsageError(said, "choose another --window or --chunk")

    @property
    def stride(self) -> int:
        """Steps between shifts, so the number of stages a window can be in."""
        return self.steps // self.chunks

    def timesteps(self, stage: int) -> Tensor:  # (F,)
        """Timesteps of a full window, oldest first, `stage` steps after its youngest chunk entered."""
        level = torch.arange(1, self.chunks + 1) * self.stride - stage
        return (level * (NOISE / self.steps)).repeat_interleave(self.chunk)


@dataclass(frozen=True, slots=True)
class Window:
    """What one training batch looks like: its noisy chunks, their stage, and whether clean ones stand before them."""

    first: int  # oldest chunk's place on the diagonal: 0 in a full or draining window
    chunks: int
    stage: int
    overlap: bool
    rejoins: bool = False  # a clean chunk follows the noisy ones: the video's own, which the window leads back to


@dataclass(frozen=True, slots=True)
class Moments:
    """How often a window is growing from nothing, growing from a clip, or draining; it is full in the rest.

    A start decides the whole video. rejoining: of all windows, those that drain towards a clean chunk.
    """

    growing: float = 0.27
    growing_from_clip: float = 0.06
    draining: float = 0.12
    rejoining: float = 0.0

    @property
    def full(self) -> float:
        """The share that is left."""
        return 1 - self.growing - self.growing_from_clip - self.draining - self.rejoining


USUAL_MOMENTS = Moments()
POCKET_MOMENTS = Moments(growing=0.37, growing_from_clip=0.05, draining=0.08, rejoining=0.05)


def draw_window(diagonal: Diagonal, draw: random.Random, moments: Moments) -> Window:
    """A random moment in the life of a window: one for the whole batch."""
    stage, kind = draw.randrange(diagonal.stride), draw.random()
    if kind < moments.full:
        return Window(0, diagonal.chunks, stage, overlap=True)
    grown = moments.full + moments.growing
    if kind < grown + moments.growing_from_clip:
        count = draw.randint(1, diagonal.chunks)
        return Window(diagonal.chunks - count, count, stage, overlap=kind > grown)
    rejoins = kind >= grown + moments.growing_from_clip + moments.draining
    return Window(0, draw.randint(1, max(1, diagonal.chunks - 1)), stage, overlap=True, rejoins=rejoins)


def shifted(times: Tensor, shift: Tensor, steps: int) -> Tensor:  # (F,), (B,) -> (B, F)
    """Timesteps moved together by `shift` standard normals a sample, kept in 0 to 999."""
    spacing = NOISE / steps
    return (times + SHIFT * spacing * shift[:, None]).clamp(0, LAST)


def progressive(diagonal: Diagonal, window: Window, shift: Tensor) -> Tensor:  # (B,) -> (B, chunks * C)
    """The timesteps of a window's noisy latents under one shared shift a sample."""
    times = diagonal.timesteps(window.stage).to(shift)
    start = window.first * diagonal.chunk
    return shifted(times[start : start + window.chunks * diagonal.chunk], shift, diagonal.steps)


def warped(times: Tensor, ratio: float) -> Tensor:
    """Timesteps pushed towards noise by `ratio` > 1, as Open-Sora trains large or long videos; any shape."""
    return ratio * times / (1 + (ratio - 1) * times / NOISE)


def uniform(latents: int, batch: int, draw: torch.Generator) -> Tensor:  # -> (B, T)
    """One level for all latents of a sample, uniform in 0 to 1000."""
    return (torch.rand(batch, 1, generator=draw) * NOISE).expand(-1, latents)


def some_clean(times: Tensor, draw: random.Random) -> Tensor:  # (B, T)
    """Open-Sora's masks: half the samples keep clean latents at the front, the back, both or anywhere."""
    times = times.clone()
    count = times.shape[1]
    for row in times:
        kind, size = draw.random(), draw.randint(1, max(1, count // 2))
        if kind < 0.25:
            row[:size] = 0
        elif kind < 0.35:
            row[-size:] = 0
        elif kind < 0.40:
            row[: max(1, size // 2)] = 0
            row[-max(1, size // 2) :] = 0
        elif kind < 0.50:
            row[torch.tensor(draw.sample(range(count), size))] = 0
    return times
