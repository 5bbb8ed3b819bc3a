"""Attention over a set of tokens, in the layout the models use."""

from __future__ import annotations

from torch import Tensor

from pavdm_kernels import dot_product


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, S, N, K) -> (B, S, N * K)
    """Every query on every key the mask allows; heads come back side by side.

    q (B, S, N, K); k, v (B, L, N, K); mask bool, broadcast to (B, N, S, L), True = attend.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return dot_product(q, k, v, mask).transpose(1, 2).flatten(2)
