"""Soft-edged shapes of which objects are made: signed distances in units, and the layers that cover pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import Color

RIM = 0.45  # how dark the outline is
WHITE: Color = (1.0, 1.0, 1.0)
Corner = tuple[float | Tensor, float | Tensor]


@dataclass(frozen=True, slots=True)
class View:
    """Where an object is seen: the offset of every pixel from its middle, and how far its wings are raised."""

    dx: Tensor  # (B, T, H, W)
    dy: Tensor  # (B, T, H, W) or broadcast to it
    soft: float  # width of an edge
    beat: Tensor  # (B, T, 1, 1), -1 to 1


class Layer(NamedTuple):
    """One shape: where it covers, how bright it is, and how much of it is a fixed color instead of the scene's."""

    cover: Tensor  # (B, T, H, W)
    shade: Tensor  # (B, T, H, W)
    mix: float = 0.0
    into: Color = WHITE


def cover(distance: Tensor, soft: float) -> Tensor:
    """How much of each pixel lies inside, 0 to 1."""
    return (0.5 - distance / soft).clamp(0, 1)


def rim(edge: Tensor, soft: float) -> Tensor:
    """A dark outline, 0.02 wide, that fades inwards."""
    return 1 - (1 - RIM) * ((edge + 0.02) / soft + 0.5).clamp(0, 1)


def shade(dx: Tensor, dy: Tensor, outline: Tensor) -> Tensor:
    """Lit from the upper left, inside its outline."""
    return outline * (0.84 + 0.36 * torch.exp(-((dx + 0.05).square() + (dy + 0.06).square()) / 0.012))


def flat(dx: Tensor, value: float = 1.0) -> Tensor:
    """An even shade."""
    return torch.full_like(dx, value)


def disc(dx: Tensor, dy: Tensor, radius: float) -> Tensor:
    """Distance from a disc's edge, negative inside, as of all shapes."""
    return (dx.square() + dy.square()).sqrt() - radius


def ellipse(dx: Tensor, dy: Tensor, half_width: float, half_height: float) -> Tensor:
    """About the distance from an ellipse, exact at its flat side."""
    return (((dx / half_width).square() + (dy / half_height).square()).sqrt() - 1) * min(half_width, half_height)


def box(dx: Tensor, dy: Tensor, half_width: float, half_height: float) -> Tensor:
    """Distance from an upright rectangle."""
    return torch.maximum(dx.abs() - half_width, dy.abs() - half_height)


def capsule(dx: Tensor, dy: Tensor, half_width: float, radius: float) -> Tensor:
    """Distance from a level bar with round ends; half_width includes them."""
    return disc((dx.abs() - (half_width - radius)).clamp_min(0), dy, radius)


def polygon(dx: Tensor, dy: Tensor, *corners: Corner) -> Tensor:
    """Distance from a convex polygon, its corners in clockwise order as seen."""
    distance = None
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = torch.hypot(torch.as_tensor(x1 - x0), torch.as_tensor(y1 - y0)).to(dx)
        side = ((y1 - y0) * (dx - x0) - (x1 - x0) * (dy - y0)) / length
        distance = side if distance is None else torch.maximum(distance, side)
    assert distance is not None
    return distance


def union(*distances: Tensor) -> Tensor:
    """Distance from several shapes together."""
    return reduce(torch.minimum, distances)
