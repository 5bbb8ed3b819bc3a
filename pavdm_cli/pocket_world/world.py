"""A small painterly world: what a scene is, and where its object is at any time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from pavdm_cli.pocket_world.vocabulary import CAMERAS, COLOURS, MOTIONS, OBJECTS, ON_WATER, TERRAINS, TIMES

HEIGHT_UNITS = 1.0  # a picture is one unit high; lengths below are in units, times in seconds
HORIZON = 0.60  # where the sea begins, from the top
PAN_SPEED = 0.14  # of the nearest layer


@dataclass(frozen=True, slots=True)
class Scene:
    """One endless video: six words a caption can say, and the numbers it does not."""

    terrain: str
    time: str
    object: str
    colour: str
    motion: str
    camera: str
    home: tuple[float, float]  # the object's resting place, offset from the middle
    phase: float  # of the motion, 0 to 1
    period: float  # factor on the motion's own period
    ground: tuple[float, ...]  # phases of the three layers of terrain, radians
    light: tuple[float, float]  # the sun's or moon's offset from its place
    grain: int  # seeds clouds, stars and texture, where the picture has them


def sample_scene(seed: int) -> Scene:
    """The scene of a seed: the same on every machine."""
    draw = random.Random(seed)
    kind = draw.choice(OBJECTS)
    afloat = kind == "boat"
    return Scene(
        terrain="sea" if afloat else draw.choice(TERRAINS),
        time=draw.choice(TIMES),
        object=kind,
        colour=draw.choice(COLOURS),
        motion=draw.choice(ON_WATER if afloat else MOTIONS),
        camera=draw.choice(CAMERAS),
        home=(draw.uniform(-0.10, 0.10), draw.uniform(-0.03, 0.03)),
        phase=draw.random(),
        period=draw.uniform(0.9, 1.1),
        ground=tuple(draw.uniform(0, 2 * math.pi) for _ in range(3)),
        light=(draw.uniform(-0.06, 0.06), draw.uniform(-0.03, 0.03)),
        grain=draw.getrandbits(16),
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
    """How the object moves; on water a bounce is a bobbing."""
    if scene.object == "boat" and scene.motion == "bouncing":
        return BOBBING
    return PATHS[scene.motion]


def rest_height(scene: Scene) -> float:
    """The height the object moves about, from the top: boats float, what bounces rests lower."""
    if scene.object == "boat":
        return HORIZON + 0.06
    return 0.52 if scene.motion == "bouncing" else 0.42


def pan_direction(scene: Scene) -> float:
    """Which way the ground slides on screen: a camera panning left sees it move right."""
    return {"still": 0.0, "left": -1.0, "right": 1.0}[scene.camera]
