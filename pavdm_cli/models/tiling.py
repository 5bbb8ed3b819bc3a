"""Large pictures in overlapping tiles, blended where they overlap: less memory, and a slightly other result."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

SIDES = range(32, 65, 4)  # of a tile, in latents; a quarter of each is shared with the next


def in_tiles(work: Callable[[Tensor], Tensor], x: Tensor, before: int = 1, after: int = 1) -> Tensor:
    """What `work` makes of x (..., H, W), a tile at a time; before, after: values on a latent's side in x and in that.

    What fits into one tile is as without tiles, to the bit.
    """
    height, width = (length // before for length in x.shape[-2:])
    side, out = tile_side(height, width), torch.empty(0)
    if max(height, width) <= side:
        return work(x)
    for place in product(_starts(height, side), _starts(width, side)):
        (top, left), (low, right) = place, (at + side for at in place)
        tile = work(x[..., before * top : before * low, before * left : before * right])
        if not any(place):
            out = tile.new_zeros((*tile.shape[:-2], after * height, after * width), dtype=torch.float32)
        down, across = (
            _weights(after * at, after * length, after * side, x.device)
            for at, length in zip(place, (height, width), strict=True)
        )
        out[..., after * top : after * low, after * left : after * right] += tile * (down[:, None] * across)
    return out.to(tile)


def tile_side(height: int, width: int) -> int:
    """The side of the tiles for so many latents: the one that leaves the least narrow rest at the right and below."""
    return max(SIDES, key=lambda side: min(_last(height, side), _last(width, side)) / side)


def _starts(length: int, side: int) -> range:
    return range(0, length, side * 3 // 4)


def _last(length: int, side: int) -> int:
    """Latents in the last tile of a row."""
    return side if len(starts := _starts(length, side)) == 1 else length - starts[-1]


def _weights(start: int, length: int, side: int, device: torch.device) -> Tensor:
    """Of a tile's values in a row: rising where the tile before it reaches to, falling where the next one begins."""
    blend, place = side // 4, torch.arange(min(side, length - start), device=device)
    rising = (place if start else place + blend) / blend
    falling = (side - place if start + side - blend < length else side - place + blend) / blend
    return torch.minimum(rising, falling).clamp(max=1)
