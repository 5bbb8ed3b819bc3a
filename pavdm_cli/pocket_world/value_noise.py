"""Smooth random texture that is a function of place and seed alone, so that it can slide, and be painted anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFF  # places repeat after 65536 cells
WORD = 0xFFFFFFFF  # 32 bits, so that no product leaves 64


def dots(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    """A number from 0 to 1 for every cell of a grid; whole numbers in, int64, broadcast together."""
    mixed = (column & MASK) * 73856093 ^ (row & MASK) * 19349663 ^ (seed & MASK) * 83492791
    mixed = _stir(_stir(mixed & WORD, 13, 1274126177), 15, 668265263)
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFF).float() / 0x1000000


def smooth(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Random values at whole places, blended in between: 0 to 1, one feature a unit; broadcast together."""
    column, row = x.floor(), y.floor()
    across, down = _ease(x - column), _ease(y - row)
    left, top = column.long(), row.long()
    above = torch.lerp(dots(left, top, seed), dots(left + 1, top, seed), across)
    below = torch.lerp(dots(left, top + 1, seed), dots(left + 1, top + 1, seed), across)
    return torch.lerp(above, below, down)


def rough(x: Tensor, y: Tensor, seed: Tensor, octaves: int = 3) -> Tensor:
    """Several sizes of `smooth` on top of one another, each half as strong and half as large: about 0 to 1."""
    sizes = [smooth(x * 2**octave, y * 2**octave, seed + octave) * 0.5**octave for octave in range(octaves)]
    return torch.stack(sizes).sum(0) / (2 - 0.5 ** (octaves - 1))


def ramp(value: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, easing in between."""
    return _ease(((value - low) / (high - low)).clamp(0, 1))


def _ease(fraction: Tensor) -> Tensor:
    return fraction * fraction * (3 - 2 * fraction)


def _stir(bits: Tensor, shift: int, factor: int) -> Tensor:
    return (bits ^ (bits >> shift)) * factor & WORD
