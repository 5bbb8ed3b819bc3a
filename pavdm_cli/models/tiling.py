"""Large images in overlapping tiles that are blended: less memory, slightly different results."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

TILE_SIDES = range(32, 65, 4)  # in latents; neighbors overlap by a quarter


def run_in_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, in_scale: int = 1, out_scale: int = 1
) -> Tensor:  # (..., H, W)
    """Apply a function tile by tile; in_scale, out_scale: pixels per latent, on a side, of x and of the result.

    If one tile is enough, the result is bit for bit that without tiling.
    """
    height, width = (length // in_scale for length in x.shape[-2:])
    side, out = tile_side(height, width), torch.empty(0)
    if max(height, width) <= side:
        return function(x)
    for corner in product(_starts(height, side), _starts(width, side)):
        (top, left), (bottom, right) = corner, (start + side for start in corner)
        tile = function(x[..., in_scale * top : in_scale * bottom, in_scale * left : in_scale * right])
        if not any(corner):
            out = tile.new_zeros((*tile.shape[:-2], out_scale * height, out_scale * width), dtype=torch.float32)
        rows, columns = (
            _blend_weights(out_scale * start, out_scale * length, out_scale * side, x.device)
            for start, length in zip(corner, (height, width), strict=True)
        )
        region = out[..., out_scale * top : out_scale * bottom, out_scale * left : out_scale * right]
        region += tile * (rows[:, None] * columns)
    return out.to(tile)


def tile_side(height: int, width: int) -> int:
    """The side of square tiles, in latents: that whose last row and column are widest."""
    return max(TILE_SIDES, key=lambda side: min(_last(height, side), _last(width, side)) / side)


def _starts(length: int, side: int) -> range:
    return range(0, length, side * 3 // 4)


def _last(length: int, side: int) -> int:
    """Latents in the last tile of a row."""
    return side if len(starts := _starts(length, side)) == 1 else length - starts[-1]


def _blend_weights(start: int, length: int, side: int, device: torch.device) -> Tensor:
    """Weights along one side of a tile: rising over the previous tile's end, falling from the next one's start."""
    blend, index = side // 4, torch.arange(min(side, length - start), device=device)
    rising = (index if start else index + blend) / blend
    falling = (side - index if start + side - blend < length else side - index + blend) / blend
    return torch.minimum(rising, falling).clamp(max=1)
