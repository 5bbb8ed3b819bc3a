"""Videos of the painted world with something wrong on purpose, for the probe to learn and the figures to catch."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pavdm_cli.pocket_world.render import Canvas, position, render
from pavdm_cli.pocket_world.vocabulary import COLOURS, OBJECTS
from pavdm_cli.pocket_world.world import Scene

AWAY = (50.0, 0.0)  # a home so far that nothing of the object is in view
APART = (0.25, 0.60)  # between the middles of an object and its double, in units
MARGIN = 0.12  # a double's middle stays this far inside the picture
TWIN, COUSIN = 0.6, 0.85  # a double is the same; up to here of another colour; else of another kind too


def missing(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T) -> (B, T, 3, H, W)
    """The scenes without their objects."""
    return render([replace(s, home=AWAY) for s in scenes], seconds, on).frames


def doubled(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, draw: random.Random) -> Tensor:
    """A second object in every scene, a little or far away from the first, mostly of the same kind and colour."""
    first = render(scenes, seconds, on).frames
    second = render([_double(s, t, on, draw) for s, t in zip(scenes, seconds, strict=True)], seconds, on)
    return torch.lerp(first, second.frames, second.mask[:, :, None])


def faded(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, kept: float) -> Tensor:
    """Objects that one can see through: `kept` is 1 for whole ones, 0 for none."""
    return torch.lerp(missing(scenes, seconds, on), render(scenes, seconds, on).frames, kept)


def smeared(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, width: float, copies: int = 5) -> Tensor:
    """Objects drawn out sideways, `width` units long."""
    places = [(i / (copies - 1) - 0.5) * width for i in range(copies)]
    moved = [[replace(s, home=(s.home[0] + dx, s.home[1])) for s in scenes] for dx in places]
    return torch.stack([render(each, seconds, on).frames for each in moved]).mean(dim=0)


def halved(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, angle: float) -> Tensor:
    """Objects cut through the middle, of which one side is gone."""
    x, y = position(scenes, seconds, on.x.numel() / on.y.numel())
    along = (on.x - x[..., None, None]) * math.cos(angle) + (on.y - y[..., None, None]) * math.sin(angle)
    return torch.where((along > 0)[:, :, None], render(scenes, seconds, on).frames, missing(scenes, seconds, on))


def frozen(seconds: Tensor, chunk: int) -> Tensor:  # (B, T) -> (B, T)
    """Times at which nothing moves inside a chunk of frames."""
    return seconds[:, ::chunk].repeat_interleave(chunk, dim=1)[:, : seconds.shape[1]]


def hopping(seconds: Tensor, chunk: int, jump: float) -> Tensor:  # (B, T) -> (B, T)
    """Times that jump ahead at every chunk's start."""
    return seconds + jump * (torch.arange(seconds.shape[1], device=seconds.device) // chunk)


def drifting(frames: Tensor, bleached: float) -> Tensor:  # (..., T, 3, H, W)
    """Frames that go white little by little, in the end by `bleached` of the way."""
    share = torch.linspace(0, bleached, frames.shape[-4], device=frames.device)[:, None, None, None]
    return torch.lerp(frames, torch.ones_like(frames), share)


def _double(scene: Scene, seconds: Tensor, on: Canvas, draw: random.Random) -> Scene:
    """The second object of a scene: placed by where the first one is in the middle of the video."""
    offset, kind = _offset(scene, seconds[len(seconds) // 2], on, draw), draw.random()
    double = replace(scene, home=(scene.home[0] + offset[0], scene.home[1] + offset[1]))
    if kind > TWIN:
        double = replace(double, colour=draw.choice(COLOURS))
    if kind > COUSIN and scene.object != "boat":
        double = replace(double, object=draw.choice([name for name in OBJECTS if name != "boat"]))
    return double


def _offset(scene: Scene, now: Tensor, on: Canvas, draw: random.Random) -> tuple[float, float]:
    """From an object to its double, both in view; boats stay on the water."""
    aspect = on.x.numel() / on.y.numel()
    x, y = (float(v) for v in position([scene], now.reshape(1, 1), aspect))
    while True:
        far, angle = draw.uniform(*APART), draw.uniform(0, 2 * math.pi)
        dx, dy = far * math.cos(angle), far * math.sin(angle)
        if scene.object == "boat":
            dx, dy = math.copysign(far, dx), dy * 0.08
        if MARGIN < x + dx < aspect - MARGIN and MARGIN < y + dy < 1 - MARGIN:
            return dx, dy
