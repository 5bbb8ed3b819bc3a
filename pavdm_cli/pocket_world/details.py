"""Details that rich frames have beyond plain ones: clouds, stars, foam, grass, rock, sand and snow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_cli.pocket_world.patterns import per_scene
from pavdm_cli.pocket_world.value_noise import cell_noise, fractal_noise, smoothstep, value_noise
from pavdm_cli.pocket_world.weather import lights
from pavdm_cli.pocket_world.world import HORIZON, PAN_SPEED, Scene, pan_direction

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas

SKY_ENDS = 0.52  # height, from the top, at which clouds and stars have faded out
WIND = 0.012  # speed of clouds, units per second
CLOUD_PARALLAX = 0.20  # of the pan
STAR_CELLS = 14.0  # grid cells per unit, some of which have a star
GROUND_TEXTURE = {  # near texture of each terrain: features per unit in x and y, strength
    "hills": (14.0, 22.0, 0.34),
    "mountains": (12.0, 7.0, 0.42),
    "dunes": (3.0, 34.0, 0.20),
    "sea": (5.0, 18.0, 0.14),
    "snow": (4.0, 26.0, 0.10),
    "city": (9.0, 9.0, 0.16),
}
FINER = (2.0, 1.4, 1.0)  # far, middle, near
LAND_BEGINS = (0.34, 0.49, 0.78)  # highest point of each layer
SNOWLINE = ((0.44, 0.49), (0.565, 0.60))  # of the far and the middle range


def add_sky_details(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, 3, H, W)
    """Add stars and clouds to a sky with its sun or moon."""
    y = on.y[on.y < SKY_ENDS][:, None]
    above, below = frames.tensor_split([len(y)], dim=-2)
    night = on.x.new_tensor([s.time == "night" and s.weather in ("clear", "clouds") for s in scenes])
    if bool(night.any()):
        above = above + _column(night)[..., None] * (1 - above) * on.rich * stars(scenes, seconds, on.x, y)[:, :, None]
    cover, light = clouds(scenes, seconds, on.x, y)
    light_of_day = lights(scenes)
    white, haze = per_scene([a.ambient for a in light_of_day], on), per_scene([a.horizon for a in light_of_day], on)
    highlight = torch.lerp(haze, white, 0.55) * light[:, :, None]
    return torch.cat([above + (highlight - above) * on.rich * cover[:, :, None], below], dim=-2)


def stars(scenes: Sequence[Scene], seconds: Tensor, x: Tensor, y: Tensor) -> Tensor:  # (B, T, H, W)
    """Brightness of twinkling stars, fewer towards the horizon; they do not move."""
    column, row = (x * STAR_CELLS).floor().long().expand(len(y), -1), (y * STAR_CELLS).floor().long()
    seed = _seeds(scenes, x)
    right, down, bright = (
        cell_noise(column, row, seed + salt) for salt in (101, 102, 103)
    )  # of each cell, (B, 1, H, W)
    dx = (x * STAR_CELLS - column) - (0.2 + 0.6 * right)
    dy = (y * STAR_CELLS - row) - (0.2 + 0.6 * down)
    size = max(0.07, 0.55 * STAR_CELLS * float(y[0, 0]) * 2)  # the first row's middle is half a pixel down
    point = torch.exp(-(dx.square() + dy.square()) / size**2) * smoothstep(bright, 0.45, 1.0)
    pulse = 0.8 + 0.2 * (1.7 * seconds[..., None, None] + 40 * right).sin()
    return point * pulse * ((SKY_ENDS - y) / 0.2).clamp(0, 1)


def clouds(scenes: Sequence[Scene], seconds: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cover and brightness of clouds, (B, T, H, W) each."""
    pan = seconds.new_tensor([pan_direction(s) * PAN_SPEED * CLOUD_PARALLAX for s in scenes])[:, None]
    along, down = (x + (seconds * (WIND + pan))[..., None])[:, :, None] * 2.3, y * 6.0
    seed = _seeds(scenes, x)
    body = fractal_noise(along, down, seed)
    over = fractal_noise(along, down - 0.45, seed, octaves=2)
    band = smoothstep(y, 0.0, 0.10) * (1 - smoothstep(y, 0.30, SKY_ENDS))
    return 0.85 * band * smoothstep(body, 0.50, 0.74), 1.06 - 0.5 * (over - 0.45).clamp(0, 0.5)


def ground_texture(scenes: Sequence[Scene], layer: int, x: Tensor, depth: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Brightness offset of the ground: grass, rock or wind-blown sand, finer in the distance; x (B, T, W)."""
    first = int(LAND_BEGINS[layer] * on.y.numel())
    along, down, strength = on.x.new_tensor([GROUND_TEXTURE[s.terrain] for s in scenes]).unbind(1)
    places = x[:, :, None] * _column(along) * FINER[layer], depth[:, :, first:] * _column(down) * FINER[layer]
    grain = fractal_noise(*places, _seeds(scenes, x) + 10 * layer, octaves=2)
    return F.pad(on.rich * _column(strength) / FINER[layer] * (grain - 0.5), (0, 0, first, 0))


def snow(scenes: Sequence[Scene], layer: int, x: Tensor, depth: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Snow cover on the two distant ranges."""
    if layer == 2:
        return torch.zeros_like(depth)
    ragged = fractal_noise(x[:, :, None] * 13, depth * 13, _seeds(scenes, x) + layer, octaves=2)
    return 0.9 * on.rich * (1 - smoothstep(on.y + 0.12 * (ragged - 0.5), *SNOWLINE[layer]))


def foam(scenes: Sequence[Scene], layer: int, x: Tensor, seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Foam on the crests of approaching waves, none near the horizon."""
    if layer != 1:
        return on.x.new_zeros(*seconds.shape, on.y.numel(), on.x.numel())
    near = on.y[on.y > HORIZON][:, None] - HORIZON
    along = x[:, :, None] * 2.4 + 0.10 * seconds[..., None, None]
    away = 3.4 / (near + 0.10) + 0.40 * seconds[..., None, None]
    seed = _seeds(scenes, x)
    crest = 1 - 2 * (value_noise(along, away, seed) - 0.5).abs()
    broken = value_noise(2.6 * along, away, seed + 1)
    cover = (
        0.45 * on.rich * smoothstep(crest, 0.86, 1.0) * smoothstep(broken, 0.45, 0.75) * smoothstep(near, 0.02, 0.15)
    )
    return F.pad(cover, (0, 0, on.y.numel() - len(near), 0))


def whiteness(scenes: Sequence[Scene], layer: int, x: Tensor, depth: Tensor, seconds: Tensor, on: Canvas) -> Tensor:
    """Cover of snow and foam, (B, T, 1, H, W)."""
    cover = torch.zeros_like(depth)
    for terrain in {s.terrain for s in scenes} & {"mountains", "sea"}:
        rows = torch.tensor([i for i, s in enumerate(scenes) if s.terrain == terrain], device=depth.device)
        matching = [s for s in scenes if s.terrain == terrain]
        if terrain == "sea":
            cover[rows] = foam(matching, layer, x[rows], seconds[rows], on)
        else:
            cover[rows] = snow(matching, layer, x[rows], depth[rows], on)
    return cover[:, :, None]


def _seeds(scenes: Sequence[Scene], like: Tensor) -> Tensor:  # (B, 1, 1, 1)
    return torch.tensor([s.grain for s in scenes], device=like.device)[:, None, None, None]


def _column(values: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1)
    return values[:, None, None, None]
