"""One Euler step of a rectified flow whose velocity is clean - noise, with a level a frame.

z' = z + (sigma[level] - sigma[level - 1]) * v,   unchanged at level 0
"""

from __future__ import annotations

import torch
from torch import Tensor


def euler_step_reference(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """One `addcmul` with the step size of every frame."""
    return torch.addcmul(z, step_sizes[levels][..., None, None, None], velocity)


def euler_step(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Takes every frame one level down; shape kept.

    z, velocity (B, T, C, H, W); levels int32 (T,) or (B, T); step_sizes (steps + 1,): sigma[l] - sigma[l - 1], first 0.
    """
    return euler_step_reference(z, velocity, levels, step_sizes)
