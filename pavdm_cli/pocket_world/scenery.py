"""What stands on the land: firs on the snow, and the buildings of a city with their windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import FIR, GROUND, WINDOW
from pavdm_cli.pocket_world.shapes import box, cover
from pavdm_cli.pocket_world.value_noise import cell_noise
from pavdm_cli.pocket_world.weather import lights
from pavdm_cli.pocket_world.world import Scene

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas

LIT = {"day": 0.0, "dawn": 0.0, "sunset": 0.35, "night": 0.60}  # share of windows with light
PITCH = (0.105, 0.105)  # between windows, in x and y


@dataclass(frozen=True, slots=True)
class Row:
    """Things that stand side by side on a layer, one in each cell: sizes in units."""

    cell: float
    low: float  # least and greatest height above the base
    high: float
    narrow: float  # least and greatest half-width
    wide: float
    haze: float


FIRS = {1: Row(0.30, 0.14, 0.21, 0.060, 0.078, 0.22), 2: Row(0.52, 0.20, 0.27, 0.085, 0.100, 0.0)}
BLOCKS = {0: Row(0.22, 0.18, 0.42, 0.085, 0.110, 0.50), 1: Row(0.30, 0.12, 0.40, 0.105, 0.140, 0.22)}
Paint = tuple[Tensor, Tensor]  # cover (B, T, H, W), color (B, T, 3, H, W)


def firs(scenes: Sequence[Scene], layer: int, x: Tensor, base: Callable[[Tensor], Tensor], on: Canvas) -> Paint:
    """Firs of three tiers; x (B, T, W) in the land's own coordinates, base gives the land's height there."""
    row = FIRS[layer]
    cell, middle = _cells(x, row, layer)
    height, half = _sizes(cell, row, layer)
    dx, up = (x - middle)[:, :, None], base(middle)[:, :, None] + 0.02 - on.y
    share = up / height[:, :, None]  # 0 at the foot, 1 at the top
    tier = (share * 3 - 0.25).clamp(0, 2.999)
    width = half[:, :, None] * (1.0 - 0.27 * tier.floor() - 0.62 * torch.frac(tier))
    edge = torch.maximum(dx.abs() - width, (share - 1) * 0.05)
    edge = torch.maximum(edge, -0.03 - up)
    shade = 1.0 - 1.6 * dx / half[:, :, None] * 0.12
    return cover(edge, 1.3 * on.soft), _tint(scenes, FIR, row.haze, on) * shade[:, :, None]


def blocks(scenes: Sequence[Scene], layer: int, x: Tensor, base: Callable[[Tensor], Tensor], on: Canvas) -> Paint:
    """Buildings of different heights; those in front have windows."""
    row = BLOCKS[layer]
    cell, middle = _cells(x, row, layer)
    height, half = _sizes(cell, row, layer)
    dx = (x - middle)[:, :, None]
    top = (base(middle) - height)[:, :, None]
    edge = torch.maximum(dx.abs() - half[:, :, None], top - on.y)
    tone = 0.88 + 0.24 * _hash(cell, layer + 7)[:, :, None] - 0.10 * (dx > 0)
    color = _tint(scenes, GROUND["city"][layer], row.haze, on) * tone[:, :, None]
    if layer == 1:
        color = _windows(color, scenes, cell[:, :, None], dx, on.y - top, height[:, :, None], on)
    return cover(edge, on.soft), color


STANDING = {"snow": firs, "city": blocks}
LAYERS = {"snow": FIRS, "city": BLOCKS}


def _windows(
    color: Tensor, scenes: Sequence[Scene], cell: Tensor, dx: Tensor, down: Tensor, height: Tensor, on: Canvas
) -> Tensor:
    """Two columns of windows; at night most have light."""
    column, story = (dx / PITCH[0]).floor(), (down / PITCH[1]).floor()
    inside = box(dx - (column + 0.5) * PITCH[0], down - (story + 0.60) * PITCH[1], 0.026, 0.030)
    visible = cover(inside, on.soft) * ((column + 0.5).abs() < 1) * (story >= 0) * ((story + 1) * PITCH[1] < height)
    lit_share = on.x.new_tensor([LIT[s.time] for s in scenes])[:, None, None, None]
    is_lit = (_hash(cell * 31 + column * 7 + story * 3, 5) < lit_share)[:, :, None]
    light = torch.where(is_lit, on.x.new_tensor(WINDOW)[:, None, None], color * 0.85)
    return torch.lerp(color, light.expand_as(color * visible[:, :, None]), visible[:, :, None])


def _cells(x: Tensor, row: Row, layer: int) -> tuple[Tensor, Tensor]:
    """The cell of each x, and the middle of what stands in it."""
    cell = (x / row.cell).floor()
    slack = row.cell - 2 * row.wide
    return cell, (cell + 0.5) * row.cell + slack * (_hash(cell, layer + 1) - 0.5)


def _sizes(cell: Tensor, row: Row, layer: int) -> tuple[Tensor, Tensor]:
    height = row.low + (row.high - row.low) * _hash(cell, layer + 3)
    return height, row.narrow + (row.wide - row.narrow) * _hash(cell, layer + 5)


def _hash(cell: Tensor, salt: int) -> Tensor:
    return cell_noise(cell.long(), torch.full_like(cell, salt).long(), torch.full_like(cell, 11).long())


def _tint(scenes: Sequence[Scene], color: tuple[float, float, float], haze: float, on: Canvas) -> Tensor:
    light = lights(scenes)
    ambient, horizon = (on.x.new_tensor([getattr(one, name) for one in light]) for name in ("ambient", "horizon"))
    return torch.lerp(on.x.new_tensor(color) * ambient, horizon, haze)[:, None, :, None, None]
