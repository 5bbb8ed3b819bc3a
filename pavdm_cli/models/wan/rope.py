"""Rotary position embedding over time, height and width."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10000.0


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head for the position in time, the row and the column."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rope_table(head_dim: int, start: int, grid: tuple[int, int, int]) -> Tensor:  # -> (T * h * w, K / 2, 2)
    """Cosine and sine of every token's angles, computed in float64, as float32; latents are counted from `start`.

    grid: latents, token rows and token columns, the order of the tokens.
    """
    latents, rows, columns = grid
    ranges = (range(start, start + latents), range(rows), range(columns))
    axes = [_angles(positions, width) for positions, width in zip(ranges, axis_widths(head_dim), strict=True)]
    cos_sin = [torch.stack([angles.cos(), angles.sin()], dim=-1).float() for angles in axes]
    grids = [
        axis.view(*(len(axis) if dim == index else 1 for dim in range(3)), *axis.shape[1:]).expand(*grid, -1, -1)
        for index, axis in enumerate(cos_sin)
    ]
    return torch.cat(grids, dim=3).flatten(0, 2)


def _angles(positions: range, width: int) -> Tensor:  # -> (positions, width / 2)
    frequencies = BASE ** (-torch.arange(0, width, 2, device="cpu", dtype=torch.float64) / width)
    return torch.tensor(positions, device="cpu", dtype=torch.float64)[:, None] * frequencies
