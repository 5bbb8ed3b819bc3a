"""Scaled dot product attention by torch, in the form that is faster on the device at hand.

o = softmax(q k^T / sqrt(K)) v
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, N, S, K) -> same
    """Heads come first; k, v (B, N, L, K), mask bool broadcast to (B, N, S, L), True = attend."""
    # Torch's fused CPU kernel has a slow backward pass, in bfloat16 above all.
    if q.requires_grad and q.device.type == "cpu":
        return dot_product_math(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def dot_product_math(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, N, S, K) -> same
    """The equation by separate matmuls: all scores are stored, the softmax is in float32 or wider."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, N, S, L)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    wide = torch.promote_types(scores.dtype, torch.float32)
    out: Tensor = scores.softmax(-1, dtype=wide).to(v.dtype) @ v
    return out
