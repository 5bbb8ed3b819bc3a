"""RMS norm of every query and key head, then rotary embedding over interleaved pairs.

u = gain * x / sqrt(mean(x^2) + eps)
(y[2i], y[2i+1]) = rotation by position * freqs[i] of (u[2i], u[2i+1])
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(x: Tensor, angles: Tensor) -> Tensor:  # (B, T, S, N, K), (T, K / 2)
    """Turns the pair (2i, 2i + 1) of frame t by `angles[t, i]`: one complex product, at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    turns = torch.polar(torch.ones_like(angles, dtype=dtype), angles.to(dtype))[:, None, None]  # (T, 1, 1, K / 2)
    pairs = torch.view_as_complex(x.to(dtype).view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def qk_norm_rope_reference(
    q: Tensor, k: Tensor, gains: tuple[Tensor, Tensor], angles: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Norm in the dtype of the heads, then `rotate`."""
    q, k = (F.rms_norm(x, x.shape[-1:], gain.to(x.dtype), eps) for x, gain in zip((q, k), gains, strict=True))
    return (q, k) if angles is None else (rotate(q, angles), rotate(k, angles))


def qk_norm_rope(
    q: Tensor, k: Tensor, gains: tuple[Tensor, Tensor], angles: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Normalised and, where `angles` is given, rotated queries and keys; shapes kept.

    q, k (B, T, S, N, K), any strides; gains (K,) each; angles (T, K / 2) = position * frequency, in radians.
    """
    return qk_norm_rope_reference(q, k, gains, angles, eps)
