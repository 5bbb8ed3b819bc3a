"""Training batches as a pure function of the step, so that a resumed run sees the same ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pavdm_cli.training.levels import (
    DEFAULT_STAGES,
    Diagonal,
    StageProbabilities,
    WindowStage,
    apply_clean_masks,
    progressive_timesteps,
    sample_window_stage,
    shift_timesteps,
    uniform_timesteps,
)
from pavdm_cli.training.losses import Batch
from pavdm_cli.training.pocket.latent_pool import Clips, captions

CAPTION_DROPOUT = 0.1
SINK_PROBABILITY = 0.5  # of a context of several chunks
METHODS = ("base", "pa", "rw")


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How batches are sampled."""

    method: str  # one of METHODS
    diagonal: Diagonal
    batch_size: int = 16
    seed: int = 0
    noise_augmentation: float = 0.15  # largest standard deviation of noise added to the clean context
    timestep_shift: float = 1.0  # towards noise, as in sampling; 1: none
    crop_multiple: int = 1  # crops start at multiples of it, where the VAE's units start
    causal: bool = True  # clean latents attend only to one another over time
    stages: StageProbabilities = DEFAULT_STAGES
    latents: int = 0  # length of the windows of base and rw; 0: a full window after a chunk of context
    fill_batches: bool = False  # more samples of short windows, up to the latents of `batch_size` full ones
    max_context: int = 1  # chunks of clean context; a window of pa has 1 to this many
    cumulative_weights: tuple[float, ...] = ()  # of the clips, with which they are drawn; empty: equal weights

    @property
    def full_window(self) -> int:
        """Latents of a full window and its context."""
        return self.diagonal.chunk * (self.diagonal.chunks + 1)

    def samples(self, latents: int) -> int:
        """The batch size of windows of a length."""
        return max(1, self.batch_size * self.full_window // latents) if self.fill_batches else self.batch_size


@dataclass(frozen=True, slots=True)
class Rng:
    """The random generators of one batch, used in a fixed order."""

    python: random.Random
    torch: torch.Generator


@dataclass(frozen=True, slots=True)
class Crop:
    """Which latents of which clips a batch contains, and their timesteps."""

    clips: list[int]
    starts: list[int]
    timesteps: Tensor  # (B, T)
    context: int  # clean latents at the start
    clean_end: int = 0  # clean latents at the end, in a window that rejoins a video
    sink: int = 0  # of the context, latents replaced by the first ones of the clip (attention sink)

    @property
    def ranges(self) -> list[tuple[int, slice]]:
        """The clip of each sample, and the range of its latents."""
        length = self.timesteps.shape[1]
        return [(clip, slice(start, start + length)) for clip, start in zip(self.clips, self.starts, strict=True)]


class CaptionedBatch(NamedTuple):
    """A batch and its captions."""

    batch: Batch
    prompts: list[str]
    dropped: Tensor  # bool (B,): samples trained without their caption
    crop: Crop


def batch_rng(config: BatchConfig, step: int) -> Rng:
    """Generators seeded by the step."""
    python = random.Random(f"{config.seed}/{config.method}/{step}")
    return Rng(python, torch.Generator().manual_seed(python.getrandbits(62)))


def sample_crop(config: BatchConfig, clips: int, length: int, rng: Rng) -> Crop:
    """Random crops of random clips, out of `clips` clips of `length` latents."""
    indices = _sample_clips(config, clips, config.batch_size, rng)
    window = sample_window_stage(config.diagonal, rng.python, config.stages) if config.method == "pa" else None
    context, clean_end = (config.diagonal.chunk if clean else 0 for clean in _clean_ends(window))
    context, sink = _sample_context(config, context, rng.python)
    noisy = window.chunks * config.diagonal.chunk if window else config.latents or config.full_window
    samples = config.samples(context + noisy + clean_end)
    indices += _sample_clips(config, clips, samples - len(indices), rng)
    timesteps = nn.functional.pad(_sample_timesteps(config, window, noisy, samples, rng), (context, clean_end))
    max_position = (length - timesteps.shape[1]) // config.crop_multiple
    starts = [config.crop_multiple * rng.python.randint(0, max_position) for _ in indices[:samples]]
    return Crop(indices[:samples], starts, timesteps, context, clean_end, sink)


def make_batch(config: BatchConfig, crop: Crop, latents: Tensor, rng: Rng) -> Batch:
    """The batch of a crop; `latents` (B, T, C, H, W) are changed in place."""
    context = latents[:, : crop.context]
    context += augmentation_noise(context, config.noise_augmentation, rng.torch)
    noise = torch.randn(latents.shape, generator=rng.torch)
    loss_mask = torch.ones_like(crop.timesteps)
    if config.method == "pa":
        loss_mask[:, : crop.context] = 0
        loss_mask[:, loss_mask.shape[1] - crop.clean_end :] = 0
    elif config.method == "base":
        loss_mask = (crop.timesteps > 0).to(crop.timesteps)
    return Batch(latents, noise, crop.timesteps, loss_mask, crop.context if config.causal else 0)


def sample_caption_dropout(count: int, rng: Rng) -> Tensor:
    """Which samples are trained without their caption, bool (B,)."""
    return torch.tensor([rng.python.random() < CAPTION_DROPOUT for _ in range(count)])


def sample_batch(config: BatchConfig, clips: Clips, pool: Tensor, step: int) -> CaptionedBatch:
    """The batch of a step; `pool` holds the latents of `clips`."""
    rng = batch_rng(config, step)
    crop = sample_crop(config, len(pool), pool.shape[1], rng)
    latents = torch.stack([pool[clip, latent_range] for clip, latent_range in crop.ranges]).float()
    latents[:, : crop.sink] = pool[crop.clips, : crop.sink].float()
    batch = make_batch(config, crop, latents, rng)
    dropped = sample_caption_dropout(len(latents), rng)
    return CaptionedBatch(batch, captions(clips, crop.clips, rng.python), dropped, crop)


def augmentation_noise(context: Tensor, max_std: float, rng: torch.Generator) -> Tensor:  # (B, T, ...) -> same
    """Noise for the clean context of half of the samples, up to `max_std`: generated context is never quite clean.

    Without it, errors accumulate in long videos, since in training the context is always from real clips.
    """
    std = max_std * (2 * torch.rand(len(context), generator=rng) - 1).clamp_min(0)
    return std.view(-1, *[1] * (context.dim() - 1)) * torch.randn(context.shape, generator=rng)


def _sample_clips(config: BatchConfig, clips: int, count: int, rng: Rng) -> list[int]:
    """The indices of `count` clips out of `clips`, drawn with replacement."""
    if not config.cumulative_weights:
        return [rng.python.randrange(clips) for _ in range(count)]
    return rng.python.choices(range(clips), cum_weights=config.cumulative_weights, k=max(0, count))


def _clean_ends(window: WindowStage | None) -> tuple[bool, bool]:
    """Whether a clean chunk precedes the noisy latents, and whether one follows them."""
    return (window.has_context, window.rejoins) if window else (False, False)


def _sample_context(config: BatchConfig, context: int, rng: random.Random) -> tuple[int, int]:
    """A random length of the context of a window that has one, and how many of its latents are a sink."""
    if not context or config.max_context == 1:
        return context, 0
    chunks = rng.randint(1, config.max_context)
    has_sink = chunks > 1 and rng.random() < SINK_PROBABILITY
    return context * chunks, context * has_sink


def _sample_timesteps(config: BatchConfig, window: WindowStage | None, latents: int, samples: int, rng: Rng) -> Tensor:
    """Timesteps (samples, latents) of the window's noisy latents; for base, some of them are clean."""
    if window:
        noisy = progressive_timesteps(config.diagonal, window, torch.randn(samples, generator=rng.torch))
        return shift_timesteps(noisy, config.timestep_shift)
    timesteps = shift_timesteps(uniform_timesteps(latents, samples, rng.torch), config.timestep_shift)
    return apply_clean_masks(timesteps, rng.python) if config.method == "base" else timesteps
