"""A dozen large stars in a clear or cloudy night; they slide a little when the camera pans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pavdm_cli.pocket_world.patterns import rows_of, spots
from pavdm_cli.pocket_world.world import PAN_SPEED, Scene, pan_direction

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas

STARS = (  # x, y and brightness, repeated after REPEAT units
    *((0.06, 0.30, 0.8), (0.19, 0.09, 1.0), (0.33, 0.22, 0.7), (0.49, 0.36, 0.9), (0.58, 0.07, 0.8)),
    *((0.74, 0.19, 1.0), (0.89, 0.40, 0.7), (0.97, 0.11, 0.9), (1.13, 0.28, 0.8), (1.24, 0.05, 0.7)),
    *((1.37, 0.17, 1.0), (1.45, 0.39, 0.8), (1.62, 0.10, 0.9), (1.71, 0.27, 0.7), (1.86, 0.20, 1.0)),
)
REPEAT = 2.0
RADIUS = 0.018
PARALLAX = 0.14  # of a pan


def add_stars(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    """Add the stars to the sky of scenes at night."""
    rows = rows_of(scenes, frames, lambda scene: scene.time == "night" and scene.weather in ("clear", "clouds"))
    if not len(rows):
        return frames
    own_scenes = [scenes[i] for i in rows]
    pan = frames.new_tensor([pan_direction(s) * PAN_SPEED * PARALLAX for s in own_scenes])[:, None]
    start = frames.new_tensor([s.grain / 0x10000 * REPEAT for s in own_scenes])[:, None]
    x, y, bright = frames.new_tensor(STARS).unbind(1)
    places = x + (start - pan * seconds[rows])[..., None]
    size = (RADIUS * (0.6 + 0.4 * bright)).clamp_min(0.8 * on.soft / 1.2)
    light = spots(places, y.expand_as(places), size, size, REPEAT, on)[:, :, None]
    frames = frames.clone()
    frames[rows] = frames[rows] + (1 - frames[rows]) * 0.75 * light.clamp(0, 1)
    return frames
