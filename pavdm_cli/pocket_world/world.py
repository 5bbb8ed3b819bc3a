"""Scenes of a small rendered world, and the motion of their objects."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from pavdm_cli.pocket_world.vocabulary import (
    AFLOAT,
    CAMERAS,
    COLORS,
    MOTIONS,
    OBJECTS,
    ON_WATER,
    TERRAINS,
    TIMES,
    WEATHERS,
)

HEIGHT_UNITS = 1.0  # a frame is one unit high; lengths below are in units, times in seconds
HORIZON = 0.60  # where the sea begins, from the top
PAN_SPEED = 0.14  # of the nearest layer
WEATHER_SHARES = (0.55, 0.20, 0.125, 0.125)  # of scenes: clear, clouds, rain, snowfall
WINGBEATS = 0.75  # per second


@dataclass(frozen=True, slots=True)
class Scene:
    """One endless video: seven attributes that captions mention, and numbers that they do not."""

    terrain: str
    time: str
    object: str
    color: str
    motion: str
    camera: str
    weather: str
    home: tuple[float, float]  # the object's resting place, offset from the middle
    phase: float  # of the motion, 0 to 1
    period: float  # factor on the period of the motion
    ground: tuple[float, ...]  # phases of the three layers of terrain, radians
    light: tuple[float, float]  # the sun's or moon's offset from its place
    grain: int  # seed of clouds, stars and textures


def sample_scene(seed: int) -> Scene:
    """The scene of a seed, the same on every machine."""
    rng = random.Random(seed)
    kind = rng.choice(OBJECTS)
    afloat = kind in AFLOAT
    return Scene(
        terrain="sea" if afloat else rng.choice(TERRAINS),
        time=rng.choice(TIMES),
        object=kind,
        color=rng.choice(COLORS),
        motion=rng.choice(ON_WATER if afloat else MOTIONS),
        camera=rng.choice(CAMERAS),
        weather=rng.choices(WEATHERS, WEATHER_SHARES)[0],
        home=(rng.uniform(-0.10, 0.10), rng.uniform(-0.03, 0.03)),
        phase=rng.random(),
        period=rng.uniform(0.9, 1.1),
        ground=tuple(rng.uniform(0, 2 * math.pi) for _ in range(3)),
        light=(rng.uniform(-0.06, 0.06), rng.uniform(-0.03, 0.03)),
        grain=rng.getrandbits(16),
    )


@dataclass(frozen=True, slots=True)
class Path:
    """A motion as numbers: x = sway * sin(a), y = lift * sin(a + quarter) - hop * |sin(a / 2)|, a = 2 pi t / period."""

    sway: float
    lift: float
    hop: float
    period: float


PATHS = {
    "drifting": Path(sway=0.36, lift=0.0, hop=0.0, period=9.0),
    "bouncing": Path(sway=0.0, lift=0.0, hop=0.26, period=6.0),
    "circling": Path(sway=0.26, lift=0.13, hop=0.0, period=6.5),
    "hovering": Path(sway=0.0, lift=0.012, hop=0.0, period=4.0),
}
BOBBING = Path(sway=0.0, lift=0.05, hop=0.0, period=3.5)


def path_of(scene: Scene) -> Path:
    """The motion of the object; what floats bobs instead of bouncing."""
    if scene.object in AFLOAT and scene.motion == "bouncing":
        return BOBBING
    return PATHS[scene.motion]


def rest_height(scene: Scene) -> float:
    """Height, from the top, about which the object moves."""
    if scene.object in AFLOAT:
        return HORIZON + 0.06
    return 0.52 if scene.motion == "bouncing" else 0.42


def pan_direction(scene: Scene) -> float:
    """Direction of the pan: with a camera panning left, the ground moves right."""
    return {"still": 0.0, "left": -1.0, "right": 1.0}[scene.camera]
