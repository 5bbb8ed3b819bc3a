"""Attention of every pixel over its own frames.

o[b, t, s] = sum_j softmax_j(q[b, t, s] . k[b, j, s] / sqrt(K)) v[b, j, s],   j over memory, then the given frames
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from pavdm_kernels.dot_product import dot_product


def temporal_attention_reference(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None = None) -> Tensor:
    """Pixels become the batch, which copies; the heads come back side by side."""
    if memory is not None:
        k, v = torch.cat([memory[0], k], dim=1), torch.cat([memory[1], v], dim=1)
    batch = q.shape[0]
    q, k, v = (rearrange(x, "b t s n k -> (b s) n t k") for x in (q, k, v))
    return rearrange(dot_product(q, k, v), "(b s) n t k -> b t s (n k)", b=batch)


def temporal_attention(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None = None) -> Tensor:
    """Attends over time with no mask; returns (B, T, S, N * K).

    q (B, T, S, N, K); k, v (B, U, S, N, K), any strides; memory (2, B, C, S, N, K): keys and values of earlier frames.
    """
    return temporal_attention_reference(q, k, v, memory)
