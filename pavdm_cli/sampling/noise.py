"""The noise of every latent, as a function of its index, and the noise fraction of every level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Noise(Protocol):
    """Standard normal noise of one latent; `step` selects the draw for latents that are noised at every step."""

    def __call__(self, index: int, step: int | None = None, /) -> Tensor: ...  # (B, C, H, W)


def seeded_noise(seed: int, shape: tuple[int, ...]) -> Noise:
    """Noise that depends only on seed, latent and step: without state, so identical in any order and after a restart.

    `shape` is (B, C, H, W), the result float32 on the CPU. Philox is counter-based: each latent and step has 2^128
    counter values of its own, so no two share a draw, and a larger batch only draws more.
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
    return shifted_sigmas(steps, 1.0)


def shifted_sigmas(steps: int, shift: float) -> Tensor:
    """Noise fraction of levels 0 to `steps`, shifted towards noise by `shift` > 1, as large or long videos need."""
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return (shift * even / (1 + (shift - 1) * even)).float()  # (steps + 1,)


@dataclass(frozen=True, slots=True, eq=False)
class NoiseLevels:
    """Noise fraction and model timestep of every level: 0 (clean) to `steps` (noise), and two more.

    Latents at `unstarted_level` are noise, those at `context_level` the context with its input noise. No step updates
    either.
    """

    sigmas: Tensor  # (steps + 3,)
    timesteps: Tensor  # (steps + 3,), model timesteps of these levels
    context_sigma: float = 0.0  # noise fraction of `context_level`

    @property
    def steps(self) -> int:
        """The level of pure noise."""
        return len(self.sigmas) - 3

    @property
    def unstarted_level(self) -> int:
        """The level of latents that have not started: noise, like `steps`, but not updated."""
        return self.steps + 1

    @property
    def context_level(self) -> int:
        """The level of the context if a model takes it slightly noised."""
        return self.steps + 2

    def to(self, device: torch.device | str) -> NoiseLevels:
        """The same on a device."""
        return replace(self, sigmas=self.sigmas.to(device), timesteps=self.timesteps.to(device))


def noise_levels(sigmas: Tensor, context: float = 0.0, timesteps: Tensor | None = None) -> NoiseLevels:
    """Levels of these noise fractions, (steps + 1,) from clean to noise.

    context: noise fraction of the context; timesteps (steps + 3,): 1000 times the noise fractions unless given.
    """
    all_sigmas = torch.cat([sigmas, sigmas[-1:], sigmas.new_tensor([context])])
    return NoiseLevels(all_sigmas, 1000 * all_sigmas if timesteps is None else timesteps, context)


def sample_noise(noise: Noise, latents: range, like: Tensor, step: int | None = None) -> Tensor:
    """Noise of these latents (at a step), (B, T, C, H, W), on the device and in the precision of `like`."""
    if not latents:
        return like[:, :0]
    return to_device_like(torch.stack([noise(index, step) for index in latents], dim=1).to(like.dtype), like)


def to_device_like(values: Tensor, like: Tensor) -> Tensor:
    """Copy to `like`'s device without synchronizing: pinned memory, non-blocking on CUDA."""
    if values.device == like.device:
        return values
    return values.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else values.to(like.device)
