"""RMS norm of every query and key head, then rotary embedding over interleaved pairs.

u = gain * x / sqrt(mean(x^2) + eps)
(y[2i], y[2i+1]) = rotation by position * freqs[i] of (u[2i], u[2i+1])
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(x: Tensor, angles: Tensor) -> Tensor:  # (B, T, S, N, K), (T, K / 2)
    """Turns the pair (2i, 2i + 1) of frame t by `angles[t, i]`."""
    cos, sin = (f.repeat_interleave(2, -1)[:, None, None] for f in (angles.cos(), angles.sin()))  # (T, 1, 1, K)
    even, odd = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.addcmul(x * cos, torch.stack([-odd, even], dim=-1).flatten(-2), sin)


def qk_norm_rope_reference(
    q: Tensor, k: Tensor, gains: tuple[Tensor, Tensor], angles: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Norm in the dtype of the heads, then `rotate`."""
    q, k = (F.rms_norm(x, x.shape[-1:], gain, eps) for x, gain in zip((q, k), gains, strict=True))
    return (q, k) if angles is None else (rotate(q, angles), rotate(k, angles))


def qk_norm_rope(
    q: Tensor, k: Tensor, gains: tuple[Tensor, Tensor], angles: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Normalised and, where `angles` is given, rotated queries and keys; shapes kept.

    q, k (B, T, S, N, K), any strides; gains (K,) each; angles (T, K / 2) = position * frequency, in radians.
    """
    return qk_norm_rope_reference(q, k, gains, angles, eps)
