"""Value noise: random textures that depend only on position and seed, so that they can move."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFF  # positions repeat after 65536 cells
WORD = 0xFFFFFFFF  # 32 bits, so that multiplication does not overflow 64


def cell_noise(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    """A number from 0 to 1 for every cell of a grid; int64 arguments, broadcast together."""
    mixed = (column & MASK) * 73856093 ^ (row & MASK) * 19349663 ^ (seed & MASK) * 83492791
    mixed = _mix(_mix(mixed & WORD, 13, 1274126177), 15, 668265263)
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFF).float() / 0x1000000


def value_noise(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Interpolated random values at integer positions, 0 to 1; arguments are broadcast together."""
    column, row = x.floor(), y.floor()
    fx, fy = _ease(x - column), _ease(y - row)
    left, top = column.long(), row.long()
    above = torch.lerp(cell_noise(left, top, seed), cell_noise(left + 1, top, seed), fx)
    below = torch.lerp(cell_noise(left, top + 1, seed), cell_noise(left + 1, top + 1, seed), fx)
    return torch.lerp(above, below, fy)


def fractal_noise(x: Tensor, y: Tensor, seed: Tensor, octaves: int = 3) -> Tensor:
    """Octaves of `value_noise`, each half as large and half as strong: about 0 to 1."""
    sizes = [value_noise(x * 2**octave, y * 2**octave, seed + octave) * 0.5**octave for octave in range(octaves)]
    return torch.stack(sizes).sum(0) / (2 - 0.5 ** (octaves - 1))


def smoothstep(value: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, cubic in between."""
    return _ease(((value - low) / (high - low)).clamp(0, 1))


def _ease(fraction: Tensor) -> Tensor:
    return fraction * fraction * (3 - 2 * fraction)


def _mix(bits: Tensor, shift: int, factor: int) -> Tensor:
    return (bits ^ (bits >> shift)) * factor & WORD
