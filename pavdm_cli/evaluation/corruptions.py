"""Corrupted videos of the procedural world, to train the probe and to test the metrics."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pavdm_cli.pocket_world.render import Canvas, position, render
from pavdm_cli.pocket_world.vocabulary import AFLOAT, COLORS, OBJECTS
from pavdm_cli.pocket_world.world import Scene

OUT_OF_VIEW = (50.0, 0.0)  # a home position from which the object is not visible
DUPLICATE_DISTANCE = (0.25, 0.60)  # between the centers of an object and its duplicate, in units of the height
MARGIN = 0.12  # distance of a duplicate's center from the border
SAME_OBJECT, SAME_KIND = 0.6, 0.85  # cumulative probabilities: identical; of another color; else of another kind too


def remove_objects(scenes: Sequence[Scene], seconds: Tensor, on: Canvas) -> Tensor:  # (B, T) -> (B, T, 3, H, W)
    """Render the scenes without their objects."""
    return render([replace(s, home=OUT_OF_VIEW) for s in scenes], seconds, on).frames


def duplicate_objects(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, rng: random.Random) -> Tensor:
    """Add a second object to every scene, mostly of the same kind and color."""
    first = render(scenes, seconds, on).frames
    second = render([_place_duplicate(s, t, on, rng) for s, t in zip(scenes, seconds, strict=True)], seconds, on)
    return torch.lerp(first, second.frames, second.mask[:, :, None])


def fade_objects(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, opacity: float) -> Tensor:
    """Make objects transparent."""
    return torch.lerp(remove_objects(scenes, seconds, on), render(scenes, seconds, on).frames, opacity)


def smear_objects(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, width: float, copies: int = 5) -> Tensor:
    """Smear objects horizontally over `width` units."""
    offsets = [(i / (copies - 1) - 0.5) * width for i in range(copies)]
    scene_copies = [[replace(s, home=(s.home[0] + dx, s.home[1])) for s in scenes] for dx in offsets]
    return torch.stack([render(each, seconds, on).frames for each in scene_copies]).mean(dim=0)


def cut_objects(scenes: Sequence[Scene], seconds: Tensor, on: Canvas, angle: float) -> Tensor:
    """Remove one half of every object."""
    x, y = position(scenes, seconds, on.x.numel() / on.y.numel())
    distance = (on.x - x[..., None, None]) * math.cos(angle) + (on.y - y[..., None, None]) * math.sin(angle)
    return torch.where(
        (distance > 0)[:, :, None], render(scenes, seconds, on).frames, remove_objects(scenes, seconds, on)
    )


def freeze_chunks(seconds: Tensor, chunk: int) -> Tensor:  # (B, T) -> (B, T)
    """Times that are constant inside each chunk."""
    return seconds[:, ::chunk].repeat_interleave(chunk, dim=1)[:, : seconds.shape[1]]


def jump_between_chunks(seconds: Tensor, chunk: int, jump: float) -> Tensor:  # (B, T) -> (B, T)
    """Times that jump by `jump` seconds at every chunk boundary."""
    return seconds + jump * (torch.arange(seconds.shape[1], device=seconds.device) // chunk)


def fade_to_white(frames: Tensor, whiteness: float) -> Tensor:  # (..., T, 3, H, W)
    """Blend frames gradually with white, up to `whiteness` at the end."""
    share = torch.linspace(0, whiteness, frames.shape[-4], device=frames.device)[:, None, None, None]
    return torch.lerp(frames, torch.ones_like(frames), share)


def _place_duplicate(scene: Scene, seconds: Tensor, on: Canvas, rng: random.Random) -> Scene:
    """A scene with the duplicate object, placed relative to the first one at the middle of the video."""
    offset, kind = _sample_offset(scene, seconds[len(seconds) // 2], on, rng), rng.random()
    duplicate = replace(scene, home=(scene.home[0] + offset[0], scene.home[1] + offset[1]))
    if kind > SAME_OBJECT:
        duplicate = replace(duplicate, color=rng.choice(COLORS))
    if kind > SAME_KIND:
        afloat = scene.object in AFLOAT
        duplicate = replace(duplicate, object=rng.choice([n for n in OBJECTS if (n in AFLOAT) == afloat]))
    return duplicate


def _sample_offset(scene: Scene, now: Tensor, on: Canvas, rng: random.Random) -> tuple[float, float]:
    """From an object to its duplicate, both visible; what floats stays on the water."""
    aspect = on.x.numel() / on.y.numel()
    x, y = (float(v) for v in position([scene], now.reshape(1, 1), aspect))
    while True:
        distance, angle = rng.uniform(*DUPLICATE_DISTANCE), rng.uniform(0, 2 * math.pi)
        dx, dy = distance * math.cos(angle), distance * math.sin(angle)
        if scene.object in AFLOAT:
            dx, dy = math.copysign(distance, dx), dy * 0.08
        if MARGIN < x + dx < aspect - MARGIN and MARGIN < y + dy < 1 - MARGIN:
            return dx, dy
