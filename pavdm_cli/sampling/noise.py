"""The noise of every latent, as a function of its index, and how much of it each level stands for."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Noise(Protocol):
    """Standard normal noise of one latent; `step` tells apart the draws for one that is noised again at every step."""

    def __call__(self, index: int, step: int | None = None, /) -> Tensor: ...  # (B, C, H, W)


def seeded_noise(seed: int, shape: tuple[int, ...]) -> Noise:
    """Noise that depends on seed, latent and step alone: no state, so the same bytes in any order and after a restart.

    `shape` is (B, C, H, W), the result float32 on the CPU. Philox counts through its draws: each latent and step has
    2^128 of its own, so that no two share any, and a larger batch only draws further.
    """

    def noise(index: int, step: int | None = None, /) -> Tensor:
        counter = (index % 2**64 << 128) | ((0 if step is None else step + 1) << 192)
        bits = np.random.Philox(key=seed % 2**128, counter=counter)
        return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))

    return noise


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Latents at noise fraction `sigma`, on the straight line from clean (0) to noise (1)."""
    return (1 - sigma) * clean + sigma * noise


def linear_sigmas(steps: int) -> Tensor:
    """Noise fraction of levels 0 to `steps`, evenly spaced from 0 to 1. Paper eq. 7."""
    return warped_sigmas(steps, 1.0)


def warped_sigmas(steps: int, ratio: float) -> Tensor:
    """Noise fraction of levels 0 to `steps`, pushed towards noise by `ratio` > 1, as large or long videos need it."""
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return (ratio * even / (1 + (ratio - 1) * even)).float()  # (steps + 1,)


def warp_ratio(height: int, width: int, frames: int) -> float:
    """The ratio Open-Sora uses for `height` x `width` pixels and as many frames as the model sees at once.

    Its latent count leaves out a last part of less than 17 frames; below 17 in all that would be none, and is 1 in 4.
    """
    latents = frames // 17 * 5 or math.ceil(frames / 4)
    return math.sqrt(height * width / 512**2 * latents)
