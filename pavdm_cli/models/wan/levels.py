"""Noise fraction and timestep of every level: a flow-matching schedule with a shift, timesteps cut to integers."""

from __future__ import annotations

import torch

from pavdm_cli.sampling.noise import NoiseLevels, noise_levels

TOP = 0.999  # of the range before the shift
TIMESTEPS = 1000
UNSTARTED = 999  # timestep of latents that are not updated yet


def wan_levels(steps: int, shift: float, context_noise: int = 0) -> NoiseLevels:
    """Levels from clean to noise; context_noise: timestep to which the context is noised."""
    even = torch.linspace(TOP, 0, steps + 1, dtype=torch.float64, device="cpu").flip(0)
    sigmas = shift * even / (1 + (shift - 1) * even)
    step_timesteps = (TIMESTEPS * sigmas).long()
    timesteps = torch.cat([step_timesteps, step_timesteps.new_tensor([UNSTARTED, context_noise])])
    return noise_levels(sigmas.float(), context_noise / TIMESTEPS, timesteps.float())
