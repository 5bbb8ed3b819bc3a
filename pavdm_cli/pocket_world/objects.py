"""The moving objects: stacks of soft-edged shapes, about ten pixels in radius at a height of 64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import PAINT, WOOD
from pavdm_cli.pocket_world.world import Scene

RIM = 0.45  # how dark the outline is


class Layer(NamedTuple):
    """One shape: where it covers, how bright it is, how much of it is wood or white instead of the scene's color."""

    cover: Tensor  # (B, T, H, W)
    shade: Tensor  # (B, T, H, W)
    wood: float = 0.0
    white: float = 0.0


Painter = Callable[[Tensor, Tensor, float], list[Layer]]


def ball(dx: Tensor, dy: Tensor, soft: float) -> list[Layer]:
    """A beach ball: a disc with a pale band."""
    edge = (dx.square() + dy.square()).sqrt() - 0.155
    body = _cover(edge, soft)
    band = body * _cover((dy + 0.35 * dx).abs() - 0.035, soft)
    shade = _shade(dx, dy, _rim(edge, soft))
    return [Layer(body, shade), Layer(band, shade, white=0.75)]


def balloon(dx: Tensor, dy: Tensor, soft: float) -> list[Layer]:
    """A hot air balloon: a tapering striped envelope over a basket."""
    up = dy + 0.05
    half = 0.155 - 0.075 * (up / 0.19).clamp(0, 1).square()
    edge = ((dx / half).square() + (up / 0.19).square()).sqrt().sub(1) * 0.14
    stripes = 0.90 + 0.18 * torch.cos(dx / half * 7.0)
    neck = _box(dx, dy - 0.15, 0.030, 0.045)
    basket = _box(dx, dy - 0.205, 0.045, 0.035)
    return [
        Layer(_cover(neck, soft), torch.full_like(dy, 0.8).expand_as(dx), wood=0.5),
        Layer(_cover(edge, soft), _shade(dx, up, _rim(edge, soft)) * stripes),
        Layer(_cover(basket, soft), torch.ones_like(dx), wood=1.0),
    ]


def kite(dx: Tensor, dy: Tensor, soft: float) -> list[Layer]:
    """A diamond in two tones with a tail of bows."""
    edge = (dx.abs() / 0.14 + (dy + 0.04).abs() / 0.19 - 1) * 0.11
    checks = 0.93 + 0.19 * (dx / soft).clamp(-1, 1) * ((dy + 0.04) / soft).clamp(-1, 1)
    bows = torch.minimum(_disc(dx - 0.022, dy - 0.19, 0.030), _disc(dx + 0.022, dy - 0.25, 0.030))
    return [
        Layer(_cover(bows, soft), torch.full_like(dx, 0.8)),
        Layer(_cover(edge, soft), checks * _rim(edge, soft)),
    ]


def boat(dx: Tensor, dy: Tensor, soft: float) -> list[Layer]:
    """A wooden hull under a colored mainsail and a pale jib."""
    hull = torch.maximum((dy - 0.055).abs() - 0.040, dx.abs() - 0.185 + 0.9 * dy)
    main = torch.maximum(0.012 - dx, torch.maximum(dy + 0.005, (dx / 0.15 - (dy + 0.005) / 0.26 - 1) * 0.13))
    jib = torch.maximum(0.018 + dx, torch.maximum(dy + 0.005, (-dx / 0.11 - (dy + 0.005) / 0.20 - 1) * 0.10))
    ones = torch.ones_like(dx)
    return [
        Layer(_cover(_box(dx, dy + 0.12, 0.009, 0.15), soft), ones, wood=1.0),
        Layer(_cover(jib, soft), ones, white=0.55),
        Layer(_cover(main, soft), 1.05 + 0.8 * dx),
        Layer(_cover(hull, soft), 1.1 - 2.0 * dy.expand_as(dx), wood=1.0),
    ]


PAINTERS: dict[str, Painter] = {"ball": ball, "balloon": balloon, "kite": kite, "boat": boat}


def blend(frames: Tensor, layers: Sequence[Layer], scenes: Sequence[Scene], tint: Tensor) -> tuple[Tensor, Tensor]:
    """Blend a stack of layers over frames (B, T, 3, H, W); returns the frames and its cover (B, T, H, W)."""
    own = frames.new_tensor([PAINT[s.colour] for s in scenes])[:, None, :, None, None]
    light = 0.60 + 0.40 * tint.mean(dim=2, keepdim=True)
    seen = torch.zeros_like(layers[0].cover)
    for layer in layers:
        plain = torch.lerp(own, frames.new_ones(3, 1, 1), layer.white)
        colour = torch.lerp(plain, frames.new_tensor(WOOD)[:, None, None], layer.wood) * light
        frames = frames + (colour * layer.shade[:, :, None] - frames) * layer.cover[:, :, None]
        seen = torch.maximum(seen, layer.cover)
    return frames, seen


def _cover(distance: Tensor, soft: float) -> Tensor:
    return (0.5 - distance / soft).clamp(0, 1)


def _rim(edge: Tensor, soft: float) -> Tensor:
    """A dark outline, 0.02 wide, that fades inwards."""
    return 1 - (1 - RIM) * ((edge + 0.02) / soft + 0.5).clamp(0, 1)


def _shade(dx: Tensor, dy: Tensor, rim: Tensor) -> Tensor:
    """Lit from the upper left, inside its rim."""
    return rim * (0.84 + 0.36 * torch.exp(-((dx + 0.05).square() + (dy + 0.06).square()) / 0.012))


def _disc(dx: Tensor, dy: Tensor, radius: float) -> Tensor:
    return (dx.square() + dy.square()).sqrt() - radius


def _box(dx: Tensor, dy: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(dx.abs() - half_width, dy.abs() - half_height)
