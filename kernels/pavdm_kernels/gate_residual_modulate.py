"""Gated residual, then the next modulation, both results written.

x' = x + gate[level] * a      (gate = 1 where there is none)
y  = LN(x') * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

import torch
from torch import Tensor

from pavdm_kernels.modulate import modulate_reference
from pavdm_kernels.rows import Rows


def gate_residual_modulate_reference(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Rows | None, shift: Rows, scale: Rows
) -> tuple[Tensor, Tensor]:
    """The residual in one `addcmul`, then `modulate_reference`."""
    x = x + a if gate is None else torch.addcmul(x, gate.at(level_idx), a)
    return x, modulate_reference(x, level_idx, shift, scale)


def gate_residual_modulate(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Rows | None, shift: Rows, scale: Rows
) -> tuple[Tensor, Tensor]:
    """Adds a branch to the stream and prepares the next branch's input: (x', y), shapes kept.

    x, a (B, T, S, D); level_idx int32 (T,) or (B, T), rows of all tables.
    """
    return gate_residual_modulate_reference(x, a, level_idx, gate, shift, scale)
