"""LayerNorm without affine, then the scale and shift of the frame's level.

y = LN(x) * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.rows import Rows


def modulate_reference(x: Tensor, level_idx: Tensor, shift: Rows, scale: Rows, eps: float = 1e-6) -> Tensor:
    """One `addcmul` after the norm, so that the product is never stored."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift.at(level_idx), normed, 1 + scale.at(level_idx))


def modulate(x: Tensor, level_idx: Tensor, shift: Rows, scale: Rows, eps: float = 1e-6) -> Tensor:
    """Normalises and modulates the tokens of every frame by that frame's level; shape kept.

    x (B, T, S, D); level_idx int32 (T,) or (B, T), rows of both tables.
    """
    return modulate_reference(x, level_idx, shift, scale, eps)
