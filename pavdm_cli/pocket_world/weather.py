"""Light and weather: clear, a few large clouds, rain in broad soft streaks, or snowfall in large soft flakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import AMBIENT, SKY, Color
from pavdm_cli.pocket_world.patterns import rows_of, spots
from pavdm_cli.pocket_world.world import PAN_SPEED, Scene, pan_direction

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas


@dataclass(frozen=True, slots=True)
class Overcast:
    """What weather makes of the light: how gray, how bright, and how much of the sun or moon and its glow is left."""

    gray: float
    bright: float
    lamp: float
    glow: float


@dataclass(frozen=True, slots=True)
class Light:
    """The colors of the sky, what daylight colors are multiplied by, and how much of the lamp and its glow shows."""

    zenith: Color
    horizon: Color
    ambient: Color
    lamp: float
    glow: float


OVERCAST = {
    "clear": Overcast(0.0, 1.0, 1.0, 1.0),
    "clouds": Overcast(0.30, 0.94, 0.85, 0.85),
    "rain": Overcast(0.50, 0.72, 0.0, 0.45),
    "snowfall": Overcast(0.60, 0.97, 0.0, 0.60),
}
CLOUDS = (  # x, y, half width, half height of the puffs of four clouds, repeated after CLOUDS_REPEAT units
    *((0.00, 0.150, 0.085, 0.045), (0.11, 0.115, 0.085, 0.075), (0.23, 0.150, 0.085, 0.045)),
    *((0.80, 0.285, 0.075, 0.040), (0.89, 0.255, 0.075, 0.065), (0.99, 0.285, 0.075, 0.040)),
    *((1.42, 0.115, 0.080, 0.040), (1.54, 0.085, 0.080, 0.070), (1.65, 0.115, 0.075, 0.040)),
    *((2.04, 0.235, 0.070, 0.036), (2.13, 0.210, 0.070, 0.060), (2.23, 0.235, 0.070, 0.036)),
)
CLOUDS_REPEAT = 2.5
WIND = 0.03  # of clouds, units a second
CLOUD_PARALLAX = 0.30  # of a pan
FLAKES_REPEAT = (1.6, 1.1)  # in x and y
FALL, FLAKES = 0.11, 22  # units a second, number
RAIN_LEAN, RAIN_SPEED, RAIN_REPEAT, RAIN_COLUMNS = 0.25, 0.60, 0.60, 6.0  # columns per unit


def light_of(time: str, weather: str = "clear") -> Light:
    """The light of a time of day in some weather."""
    gray, bright = OVERCAST[weather].gray, OVERCAST[weather].bright
    zenith, horizon = (_dull(color, gray, bright) for color in SKY[time])
    return Light(
        zenith, horizon, _dull(AMBIENT[time], 0.6 * gray, bright), OVERCAST[weather].lamp, OVERCAST[weather].glow
    )


def lights(scenes: Sequence[Scene]) -> list[Light]:
    """The light of every scene."""
    return [light_of(scene.time, scene.weather) for scene in scenes]


def add_clouds(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    """Put a few large soft clouds, which move with the wind and the pan, before the sky of cloudy scenes."""
    rows = rows_of(scenes, frames, lambda scene: scene.weather == "clouds")
    if not len(rows):
        return frames
    own_scenes, light = [scenes[i] for i in rows], lights([scenes[i] for i in rows])
    pan = frames.new_tensor([pan_direction(s) * PAN_SPEED * CLOUD_PARALLAX for s in own_scenes])[:, None]
    start = frames.new_tensor([_start(s, 1) * CLOUDS_REPEAT for s in own_scenes])[:, None]
    x, y, width, height = frames.new_tensor(CLOUDS).unbind(1)
    shift = (start - (WIND + pan) * seconds[rows])[..., None]
    body = spots(x + shift, y.expand_as(x + shift), width, height, CLOUDS_REPEAT, on)
    under = spots(x + shift, (y + 0.035).expand_as(x + shift), width, height, CLOUDS_REPEAT, on)
    cover = 0.85 * ((body - 0.32) / 0.28).clamp(0, 1)
    bright = frames.new_tensor([[0.35 + 0.65 * v for v in one.ambient] for one in light])[:, None, :, None, None]
    haze = frames.new_tensor([one.horizon for one in light])[:, None, :, None, None]
    color = torch.lerp(bright, haze, 0.35) * (1.04 - 0.22 * (under - 0.5).clamp(0, 0.8))[:, :, None]
    frames = frames.clone()
    frames[rows] = torch.lerp(frames[rows], color.clamp(0, 1), cover[:, :, None])
    return frames


def add_falling(frames: Tensor, scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    """Put rain or snowflakes before the land and the sky."""
    for weather, paint in (("rain", rain), ("snowfall", snowfall)):
        rows = rows_of(scenes, frames, lambda scene, weather=weather: scene.weather == weather)  # type: ignore[misc]
        if len(rows):
            own_scenes = [scenes[i] for i in rows]
            cover = paint(own_scenes, seconds[rows], on)[:, :, None]
            ambient = frames.new_tensor([one.ambient for one in lights(own_scenes)])[:, None, :, None, None]
            frames = frames.clone()
            frames[rows] = torch.lerp(frames[rows], 0.35 + 0.62 * ambient, cover)
    return frames


def rain(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Cover of slanted streaks that fall in columns."""
    start = seconds.new_tensor([_start(s, 2) for s in scenes])[:, None, None, None]
    position = (on.x + RAIN_LEAN * on.y) * RAIN_COLUMNS
    column = position.floor()
    offset = torch.frac(column * 0.61803 + 0.13 * column.remainder(3))  # of each column
    down = torch.frac((on.y - RAIN_SPEED * seconds[..., None, None]) / RAIN_REPEAT + offset + start)
    narrow = 1 - ((position - column - 0.5).abs() / 0.22).clamp(0, 1).square()
    return 0.26 * narrow * (0.5 - 0.5 * (2 * math.pi * down).cos()).square()


def snowfall(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T, H, W)
    """Cover of flakes that sway as they fall."""
    number = torch.arange(FLAKES, device=seconds.device, dtype=seconds.dtype)
    wide, high = FLAKES_REPEAT
    start = seconds.new_tensor([_start(s, 3) for s in scenes])[:, None, None]
    pan = seconds.new_tensor([pan_direction(s) * PAN_SPEED * 0.6 for s in scenes])[:, None]
    x = number * 0.61803 * wide + 0.03 * (0.9 * seconds[..., None] + number).sin() - (pan * seconds)[..., None]
    y = number / FLAKES * high + (FALL * seconds)[..., None] + start * high
    y = y.remainder(high) - 0.05
    size = 0.025 + 0.007 * (number * 0.7548).frac()
    return 0.9 * spots(x + start * wide, y, size, size, wide, on).clamp(0, 1)


def _dull(color: Color, gray: float, bright: float) -> Color:
    """A color mixed with a bluish gray of its brightness."""
    if not gray:
        return color
    level = 0.3 * color[0] + 0.5 * color[1] + 0.2 * color[2]
    red, green, blue = (
        bright * ((1 - gray) * part + gray * level * cast) for part, cast in zip(color, (0.96, 1.0, 1.06), strict=True)
    )
    return red, green, blue


def _start(scene: Scene, salt: int) -> float:
    """Where a pattern starts, 0 to 1, by the scene's grain."""
    return (scene.grain * 0.6180339887 * salt) % 1.0
