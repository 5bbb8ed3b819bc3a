"""Water: ripples, the sun's or moon's reflection, and broad crests that slide when the camera pans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import LIGHT
from pavdm_cli.pocket_world.patterns import spots
from pavdm_cli.pocket_world.weather import lights
from pavdm_cli.pocket_world.world import HORIZON, PAN_SPEED, Scene, pan_direction

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas

CRESTS = (  # x, depth under the horizon, half width, half height, parallax; repeated after REPEAT units
    *((0.10, 0.070, 0.085, 0.013, 0.65), (0.62, 0.060, 0.075, 0.013, 0.65), (1.16, 0.075, 0.085, 0.013, 0.65)),
    *((0.36, 0.165, 0.120, 0.018, 0.80), (0.98, 0.150, 0.110, 0.018, 0.80), (1.55, 0.170, 0.120, 0.018, 0.80)),
    *((0.15, 0.290, 0.160, 0.026, 1.00), (0.75, 0.310, 0.170, 0.026, 1.00), (1.35, 0.280, 0.160, 0.026, 1.00)),
)
REPEAT = 1.8


def ripple(x: Tensor, seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W), -1 to 1
    """Swell that comes towards the viewer; x (B, T, W)."""
    depth = 1.0 / (on.y - HORIZON + 0.10).clamp_min(0.10)  # large far away
    swell = (5.0 * x).sin()[:, :, None]  # (B, T, 1, W)
    return (2.6 * depth + 1.1 * swell + 1.2 * seconds[..., None, None]).sin()


def waves(x: Tensor, seconds: Tensor, on: Canvas) -> Tensor:
    """Brightness offset of ripples."""
    return (0.06 + 0.08 * on.detail) * ripple(x, seconds, on)


def glitter(scenes: Sequence[Scene], x: Tensor, seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, 3, H, W)
    """The reflection of the sun or moon, to add."""
    lamps, brightness = [LIGHT[s.time] for s in scenes], on.x.new_tensor([light.lamp for light in lights(scenes)])
    center = on.x.new_tensor([a.x + s.light[0] for a, s in zip(lamps, scenes, strict=True)])[:, None, None, None]
    color = (on.x.new_tensor([a.color for a in lamps]) * brightness[:, None])[:, None, :, None, None]
    column = torch.exp(-((on.x - center) / 0.11).square())
    return 0.30 * color * (column * (0.55 + 0.45 * ripple(x, seconds, on)))[:, :, None]


def crests(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Cover of broad glints on the water, which bob a little and slide with the pan, near ones faster."""
    x, depth, width, height, parallax = on.x.new_tensor(CRESTS).unbind(1)
    pan = seconds.new_tensor([pan_direction(s) * PAN_SPEED for s in scenes])[:, None]
    start = seconds.new_tensor([s.grain / 0x10000 * REPEAT for s in scenes])[:, None, None]
    places = x + start - (pan * seconds)[..., None] * parallax
    bob = 0.25 * height * (1.2 * seconds[..., None] + 2.4 * torch.arange(len(x), device=x.device)).sin()
    return 0.45 * spots(places, HORIZON + depth + bob, width, height, REPEAT, on).clamp(0, 1)
