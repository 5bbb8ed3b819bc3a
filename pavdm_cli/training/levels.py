"""Noise levels of the latents of a training window: one for all (base, rw), or progressive ones (paper 3.5)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.errors import UsageError

NOISE_TIMESTEP = 1000.0  # pure noise; 0 is clean
MAX_NOISY_TIMESTEP = 999.0
OFFSET_STD = 0.4  # standard deviation of a sample's shared offset, in units of the spacing between levels


@dataclass(frozen=True, slots=True)
class Diagonal:
    """The progressive levels of a window: chunks of latents over `steps` levels."""

    steps: int
    chunks: int  # P, in a full window
    chunk: int  # C, latents

    def __post_init__(self) -> None:
        if self.steps % self.chunks:
            message = f"training steps must be a multiple of the {self.chunks} chunks, got {self.steps}"
            raise UsageError(message, "choose another --window or --chunk")

    @property
    def stride(self) -> int:
        """Steps between shifts, which is also the number of stages of a window."""
        return self.steps // self.chunks

    def timesteps(self, stage: int) -> Tensor:  # (F,)
        """Timesteps of a full window, oldest first, `stage` steps after its newest chunk entered."""
        level = torch.arange(1, self.chunks + 1) * self.stride - stage
        return (level * (NOISE_TIMESTEP / self.steps)).repeat_interleave(self.chunk)


@dataclass(frozen=True, slots=True)
class WindowStage:
    """The window of one training batch: its noisy chunks, their stage, and whether clean context precedes them."""

    first_chunk: int  # position of the oldest chunk on the diagonal; 0 in a full window and during ramp-down
    chunks: int
    stage: int
    has_context: bool
    rejoins: bool = False  # a clean chunk of the same clip follows the noisy ones


@dataclass(frozen=True, slots=True)
class StageProbabilities:
    """How often a window is ramping up from nothing, ramping up from a clip, or ramping down; otherwise it is full.

    Ramp-up is frequent because the start determines the whole video. rejoining: leading up to a clean chunk, either
    ramping down or, as in a short span, with chunks that have not started.
    """

    ramp_up: float = 0.27
    ramp_up_from_clip: float = 0.06
    ramp_down: float = 0.12
    rejoining: float = 0.0

    @property
    def full(self) -> float:
        """The probability of a full window."""
        return 1 - self.ramp_up - self.ramp_up_from_clip - self.ramp_down - self.rejoining


DEFAULT_STAGES = StageProbabilities()
POCKET_STAGES = StageProbabilities(ramp_up=0.37, ramp_up_from_clip=0.05, ramp_down=0.08, rejoining=0.14)


def sample_window_stage(diagonal: Diagonal, rng: random.Random, stages: StageProbabilities) -> WindowStage:
    """A random stage of sampling, shared by the whole batch."""
    stage, kind = rng.randrange(diagonal.stride), rng.random()
    if kind < stages.full:
        return WindowStage(0, diagonal.chunks, stage, has_context=True)
    ramp_up_end = stages.full + stages.ramp_up
    if kind < ramp_up_end + stages.ramp_up_from_clip:
        count = rng.randint(1, diagonal.chunks)
        return WindowStage(diagonal.chunks - count, count, stage, has_context=kind > ramp_up_end)
    rejoins = kind >= ramp_up_end + stages.ramp_up_from_clip + stages.ramp_down
    first = rng.choice((0, rng.randrange(diagonal.chunks))) if rejoins else 0
    return WindowStage(first, rng.randint(1, max(1, diagonal.chunks - 1)), stage, has_context=True, rejoins=rejoins)


def progressive_timesteps(diagonal: Diagonal, window: WindowStage, offsets: Tensor) -> Tensor:
    """Timesteps (B, chunks * C) of a window's noisy latents, plus one offset per sample (paper 3.5).

    Chunks beyond the diagonal have not started: they are pure noise. offsets: (B,), from a standard normal.
    """
    start = window.first_chunk * diagonal.chunk
    diagonal_timesteps = diagonal.timesteps(window.stage).to(offsets)
    timesteps = torch.cat([diagonal_timesteps, torch.full_like(diagonal_timesteps, NOISE_TIMESTEP)])
    timesteps = timesteps[start : start + window.chunks * diagonal.chunk]
    spacing = NOISE_TIMESTEP / diagonal.steps
    return (timesteps + OFFSET_STD * spacing * offsets[:, None]).clamp(0, MAX_NOISY_TIMESTEP)


def shift_timesteps(timesteps: Tensor, shift: float) -> Tensor:
    """Shift timesteps towards noise if `shift` > 1, as Open-Sora does for large or long videos."""
    return shift * timesteps / (1 + (shift - 1) * timesteps / NOISE_TIMESTEP)


def uniform_timesteps(latents: int, batch: int, rng: torch.Generator) -> Tensor:  # -> (B, T)
    """One timestep for all latents of a sample, uniform in 0 to 1000."""
    return (torch.rand(batch, 1, generator=rng) * NOISE_TIMESTEP).expand(-1, latents)


def apply_clean_masks(timesteps: Tensor, rng: random.Random) -> Tensor:  # (B, T)
    """Open-Sora's masks: half of the samples get clean latents at the start, the end, both, or random positions.

    A single latent is always noisy.
    """
    timesteps = timesteps.clone()
    count = timesteps.shape[1]
    if count == 1:
        return timesteps
    for row in timesteps:
        kind, size = rng.random(), rng.randint(1, max(1, count // 2))
        if kind < 0.25:
            row[:size] = 0
        elif kind < 0.35:
            row[-size:] = 0
        elif kind < 0.40:
            row[: max(1, size // 2)] = 0
            row[-max(1, size // 2) :] = 0
        elif kind < 0.50:
            row[torch.tensor(rng.sample(range(count), size))] = 0
    return timesteps
