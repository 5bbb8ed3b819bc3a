"""Sinusoidal embedding of a number.

e[n, i] = cos(t[n] * f[i]),  e[n, width/2 + i] = sin(t[n] * f[i]),  f[i] = 10000^(-2i / width)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def timestep_embedding_reference(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Cosines first, then sines; at least float32 whatever the dtype of `t`."""
    dtype = torch.promote_types(t.dtype, torch.float32)
    half = torch.arange(width // 2, dtype=dtype, device=t.device)
    angles = t.to(dtype)[:, None] * torch.exp(half * (-2 * math.log(10000.0) / width))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def timestep_embedding(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Embeds timesteps, or frame rates, unscaled."""
    return timestep_embedding_reference(t, width)
