"""Renders scenes at given times in torch, so that a GPU can render its own training data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.pocket_world import details, objects, terrain
from pavdm_cli.pocket_world.palette import LIGHT
from pavdm_cli.pocket_world.patterns import per_scene, rows_of
from pavdm_cli.pocket_world.shapes import View
from pavdm_cli.pocket_world.stars import add_stars
from pavdm_cli.pocket_world.weather import add_clouds, add_falling, lights
from pavdm_cli.pocket_world.world import WINGBEATS, Scene, path_of, rest_height


@dataclass(frozen=True, slots=True)
class Canvas:
    """The pixel grid: x from 0 to the aspect ratio, y from 0 (top) to 1."""

    x: Tensor  # (W,)
    y: Tensor  # (H, 1)
    detail: float  # 0 plain to 1 rich

    @property
    def soft(self) -> float:
        """Width of an edge, in units: a little over one pixel."""
        return 1.2 / self.y.numel()

    @property
    def rich(self) -> float:
        """Amount of details beyond plain frames: 0 up to a `detail` of 0.5, then up to 1."""
        return max(0.0, 2 * self.detail - 1)


@dataclass(frozen=True, slots=True)
class SceneFrames:
    """Rendered frames, 0 to 1, and the mask of the object."""

    frames: Tensor  # (B, T, 3, H, W)
    mask: Tensor  # (B, T, H, W), 1 on the object


def canvas(size: tuple[int, int], detail: float, device: torch.device | str = "cpu") -> Canvas:
    """The grid for a size (height, width)."""
    height, width = size
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / height
    return Canvas(x, y[:, None], detail)


def render(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> SceneFrames:
    """Render each scene at its own times; seconds (B, T), any real numbers."""
    seconds = seconds.to(on.x)
    frames = sky(scenes, on).expand(-1, seconds.shape[1], -1, -1, -1)
    frames = add_stars(frames, scenes, seconds, on)
    if on.rich:
        frames = details.add_sky_details(frames, scenes, seconds, on)
    frames = add_clouds(frames, scenes, seconds, on)
    frames = terrain.render_ground(frames, scenes, seconds, on)
    frames = add_falling(frames, scenes, seconds, on)
    frames, mask = _add_objects(frames, scenes, seconds, on)
    return SceneFrames(frames.clamp_(0, 1), mask)


def _add_objects(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> tuple[Tensor, Tensor]:
    """Put every scene's object in front; returns the frames and its cover."""
    tint = per_scene([light.ambient for light in lights(scenes)], on)  # (B, 1, 3, 1, 1)
    mask = frames.new_zeros(frames.shape[:2] + frames.shape[3:])
    frames = frames.contiguous()
    for kind in {s.object for s in scenes}:
        rows = rows_of(scenes, frames, lambda scene, kind=kind: scene.object == kind)  # type: ignore[misc]
        own_scenes = [scenes[i] for i in rows]
        layers = objects.PAINTERS[kind](_view(own_scenes, seconds[rows], on))
        frames[rows], mask[rows] = objects.blend(frames[rows], layers, own_scenes, tint[rows])
    return frames, mask


def position(scenes: Sequence[Scene], seconds: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """Position of each object, x and y (B, T) in units."""
    paths = [path_of(s) for s in scenes]
    column = {name: seconds.new_tensor([getattr(p, name) for p in paths])[:, None] for name in ("sway", "lift", "hop")}
    period = seconds.new_tensor([p.period * s.period for p, s in zip(paths, scenes, strict=True)])[:, None]
    phase = seconds.new_tensor([s.phase for s in scenes])[:, None]
    angle = 2 * math.pi * (seconds / period + phase)
    home = seconds.new_tensor([(aspect / 2 + s.home[0], rest_height(s) + s.home[1]) for s in scenes])
    x = home[:, :1] + column["sway"] * angle.sin()
    y = home[:, 1:] + column["lift"] * angle.cos() - column["hop"] * (angle / 2).sin().abs()
    return x, y


def sky(scenes: Sequence[Scene], on: Canvas) -> Tensor:  # (B, 1, 3, H, W)
    """A gradient with the sun or moon and its glow; constant in time."""
    light = lights(scenes)
    top, low = per_scene([one.zenith for one in light], on), per_scene([one.horizon for one in light], on)
    lamp, glow_share = on.x.new_tensor([(one.lamp, one.glow) for one in light])[:, :, None, None, None, None].unbind(1)
    fade = (on.y / 0.62).clamp(0, 1) ** 1.3
    image = top + (low - top) * fade
    lamps = [LIGHT[s.time] for s in scenes]
    center = on.x.new_tensor([(a.x + s.light[0], a.y + s.light[1]) for a, s in zip(lamps, scenes, strict=True)])
    radius = on.x.new_tensor([a.radius for a in lamps])[:, None, None, None, None]
    away = (on.x - center[:, :1, None, None, None]).square() + (on.y - center[:, 1:, None, None, None]).square()
    color = per_scene([a.color for a in lamps], on)
    glow = 0.55 * glow_share * torch.exp(-away / (2.2 * radius).square())
    disc = lamp * ((radius - away.sqrt()) / on.soft + 0.5).clamp(0, 1)
    image = image + (color - image) * glow
    return image + (color - image) * disc


def _view(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> View:
    x, y = position(scenes, seconds, on.x.numel() / on.y.numel())
    beat = (2 * math.pi * WINGBEATS * seconds).sin()[..., None, None]
    return View((on.x - x[..., None, None]).expand(-1, -1, on.y.numel(), -1), on.y - y[..., None, None], on.soft, beat)
