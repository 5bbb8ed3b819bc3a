"""Three layers of ground with parallax when the camera pans, or water with islands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.pocket_world import details, scenery, water
from pavdm_cli.pocket_world.palette import GROUND
from pavdm_cli.pocket_world.patterns import per_scene, rows_of
from pavdm_cli.pocket_world.weather import lights
from pavdm_cli.pocket_world.world import HORIZON, PAN_SPEED, Scene, pan_direction

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas

PARALLAX = (0.35, 0.65, 1.0)  # far, middle, near


@dataclass(frozen=True, slots=True)
class Land:
    """A terrain's outline: the height of each layer from the top, its relief and its waves per unit; and its haze."""

    base: tuple[float, float, float]
    relief: tuple[float, float, float]
    waves: tuple[float, float, float]
    outline: Callable[[Tensor], Tensor]  # angle -> about -1 to 1
    haze: tuple[float, float, float] = (0.50, 0.25, 0.0)  # how much of the horizon's color a layer takes


def _rolling(a: Tensor) -> Tensor:
    return 0.65 * a.sin() + 0.35 * (1.73 * a + 1.1).sin()


def _ridge_profile(a: Tensor) -> Tensor:
    return 1.0 - 2.0 * ((a / 2).sin().square() + 0.03).sqrt() + 0.3 * (1.37 * a + 0.5).sin()


def _dune_profile(a: Tensor) -> Tensor:
    return (a + 0.7 * a.sin()).sin()


LANDS = {
    "hills": Land((0.60, 0.71, 0.86), (0.055, 0.055, 0.050), (4.6, 3.7, 3.0), _rolling),
    "mountains": Land((0.50, 0.62, 0.88), (0.130, 0.100, 0.030), (6.0, 5.0, 3.0), _ridge_profile),
    "dunes": Land((0.60, 0.72, 0.86), (0.050, 0.065, 0.060), (4.4, 3.6, 3.0), _dune_profile),
    "snow": Land((0.57, 0.70, 0.87), (0.055, 0.050, 0.045), (4.0, 3.4, 2.8), _rolling, haze=(0.40, 0.15, 0.0)),
    "city": Land((0.70, 0.82, 0.91), (0.0, 0.0, 0.018), (1.0, 1.0, 3.0), _rolling),
    "sea": Land((HORIZON + 0.06, HORIZON, 1.2), (0.15, 0.0, 0.0), (6.0, 0.0, 0.0), _rolling, haze=(0.15, 0.25, 0.0)),
}


def render_ground(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    """Render the three layers over the sky, far to near; frames (B, T, 3, H, W)."""
    for layer in range(3):
        slide = frames.new_tensor([pan_direction(s) * PAN_SPEED * PARALLAX[layer] for s in scenes])[:, None] * seconds
        x = on.x + slide[..., None]  # (B, T, W), in the land's own coordinates
        frames = _stand(frames, scenes, layer, x, on)
        frames = _lay(frames, scenes, layer, x, seconds, on)
    return frames


def _lay(frames: Tensor, scenes: Sequence[Scene], layer: int, x: Tensor, seconds: Tensor, on: Canvas) -> Tensor:
    """Cover what lies below a layer's outline; the sea is one, with ripples, crests and a reflection."""
    wet = layer == 1 and any(s.terrain == "sea" for s in scenes)
    is_sea = frames.new_tensor([s.terrain == "sea" for s in scenes])[:, None, None, None]
    tint = per_scene([light.ambient for light in lights(scenes)], on)
    top, slope = _outline(scenes, layer, x)  # (B, T, 1, W)
    depth = on.y - top
    cover = (depth / on.soft + 0.5).clamp(0, 1)[:, :, None]  # (B, T, 1, H, W)
    shade = 1.06 - 0.9 * depth.clamp(0, 0.25) + 0.10 * slope
    if wet:
        shade = shade + is_sea * water.waves(x, seconds, on)
    if on.rich:
        shade = shade + details.ground_texture(scenes, layer, x, depth, on)
    color = _color(scenes, layer, on) * shade[:, :, None]
    if on.rich:
        color = color + (tint - color) * details.whiteness(scenes, layer, x, depth, seconds, on)
    if wet:
        pale = (1.1 * tint + 0.3 * per_scene([light.horizon for light in lights(scenes)], on)).clamp(0, 1)
        color = color + (pale - color) * (is_sea * water.crests(scenes, seconds, on))[:, :, None]
    frames = frames + (color - frames) * cover
    if wet:
        frames = frames + water.glitter(scenes, x, seconds, on) * (is_sea[..., None] * cover)
    return frames


def _stand(frames: Tensor, scenes: Sequence[Scene], layer: int, x: Tensor, on: Canvas) -> Tensor:
    """Put firs or buildings on a layer, their feet behind its edge."""
    for name, paint in scenery.STANDING.items():
        rows = rows_of(scenes, frames, lambda scene, name=name: scene.terrain == name)  # type: ignore[misc]
        if not len(rows) or layer not in scenery.LAYERS[name]:
            continue
        land, own_scenes = LANDS[name], [scenes[i] for i in rows]
        start = x.new_tensor([s.ground[layer] for s in own_scenes])[:, None, None]

        def base(place: Tensor, land: Land = land, start: Tensor = start) -> Tensor:
            angle = land.waves[layer] * (place - start) + start
            return land.base[layer] - land.relief[layer] * land.outline(angle)

        cover, color = paint(own_scenes, layer, x[rows] + start, base, on)
        frames = frames.clone()
        frames[rows] = torch.lerp(frames[rows], color, cover[:, :, None])
    return frames


def _outline(scenes: Sequence[Scene], layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The height of the land's edge and how steeply it rises to the right, both (B, T, 1, W)."""
    top, slope = torch.empty_like(x), torch.empty_like(x)
    for name in {s.terrain for s in scenes}:
        rows = torch.tensor([i for i, s in enumerate(scenes) if s.terrain == name], device=x.device)
        land, start = LANDS[name], x.new_tensor([s.ground[layer] for s in scenes if s.terrain == name])
        angle = land.waves[layer] * x[rows] + start[:, None, None]
        top[rows] = land.base[layer] - land.relief[layer] * land.outline(angle)
        slope[rows] = (land.outline(angle + 0.1) - land.outline(angle - 0.1)) * (5.0 if land.relief[layer] else 0.0)
    return top[:, :, None], slope[:, :, None].clamp(-1, 1)


def _color(scenes: Sequence[Scene], layer: int, on: Canvas) -> Tensor:  # (B, 1, 3, 1, 1)
    light = lights(scenes)
    land = on.x.new_tensor([GROUND[s.terrain][layer] for s in scenes])
    tint, haze = (on.x.new_tensor([getattr(one, name) for one in light]) for name in ("ambient", "horizon"))
    share = on.x.new_tensor([LANDS[s.terrain].haze[layer] for s in scenes])[:, None]
    return torch.lerp(land * tint, haze, share)[:, None, :, None, None]
