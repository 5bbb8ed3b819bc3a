"""Locates the object of a painted scene in every frame by template matching, and measures its color and speed.

The world renders an object always at the same size, so it is where one of its templates, one per color, matches best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.evaluation.probe import PROBE_FPS, SIZE
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.pocket_world.render import canvas, position, render
from pavdm_cli.pocket_world.vocabulary import COLORS
from pavdm_cli.pocket_world.world import WINGBEATS, Scene, path_of

DETAIL = 0.3
INSIDE = 0.95  # of the object's cover: pixels with less mix with the background
LARGEST_CHANGE = 0.2  # of a color as wings beat
LARGEST_ERROR = 0.11  # root mean square error of a match; rendered objects reach 0.08
SPEED_FRAMES = 4000  # over which the mean speed of a motion is computed


@dataclass(frozen=True, slots=True)
class Templates:
    """The object in every color, cut out, in the light of the scene's time of day."""

    colors: Tensor  # (C, 3, h, w), 0 outside of the object
    weights: Tensor  # (h, w), 1 on the object
    expected: int  # index of the color that the scene has

    @property
    def paint(self) -> Tensor:  # (h, w)
        """Where the color of the object shows, rather than parts that every object of the kind has; sums to 1."""
        varies = self.colors.std(dim=0).mean(dim=0) * self.weights
        return varies / varies.sum()


@dataclass(frozen=True, slots=True)
class Detection:
    """An object in one frame."""

    x: float  # of its middle, in frame heights
    y: float
    color: NDArray[np.float32]  # (3,), mean of its paint
    patch: NDArray[np.float32]  # (3, h, w)


def object_templates(scene: Scene) -> Templates:
    """Templates of the object at the start, without what wings that beat leave."""
    images = render(
        [replace(scene, color=color) for color in COLORS], torch.zeros(len(COLORS), 1), canvas(SIZE, DETAIL)
    )
    weights = stiff_mask(scene).float()  # (H, W)
    rows, columns = weights.amax(dim=1).nonzero()[:, 0], weights.amax(dim=0).nonzero()[:, 0]
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    cut = (images.frames[:, 0] * weights)[:, :, *box]
    return Templates(cut, weights[box], COLORS.index(scene.color))


def stiff_mask(scene: Scene) -> Tensor:  # (H, W)
    """Pixels that the object covers at the start and whose color stays as its wings beat."""
    period = path_of(scene).period * scene.period
    seconds = torch.tensor([0.0, 0.25, 0.75]) / WINGBEATS
    scenes = [replace(scene, phase=scene.phase - float(moment) / period) for moment in seconds]  # at the same place
    poses = render(scenes, seconds[:, None], canvas(SIZE, DETAIL))
    change = (poses.frames.amax(dim=0) - poses.frames.amin(dim=0)).amax(dim=1)[0]
    return (poses.mask[:, 0].amin(dim=0) > INSIDE) & (change < LARGEST_CHANGE)


def find_object(frame: NDArray[np.uint8], templates: Templates) -> Detection | None:  # (H, W, 3)
    """The object at the best match of any template; None if no match is good enough."""
    pixels = from_bytes(frame)
    errors = matching_errors(pixels, templates)  # (C, rows, columns)
    best = int(errors.argmin())
    color, place = divmod(best, errors[0].numel())
    row, column = divmod(place, errors.shape[2])
    if float(errors[color, row, column]) > LARGEST_ERROR**2:
        return None
    height, width = templates.weights.shape
    patch = pixels[:, row : row + height, column : column + width]
    y, x = (
        at + _minimum(errors[color].movedim(axis, 0)[:, other], at)
        for at, axis, other in ((row, 0, column), (column, 1, row))
    )
    middle = (x + width / 2) / SIZE[0], (y + height / 2) / SIZE[0]
    paint = (patch * templates.paint).sum(dim=(1, 2))
    return Detection(*middle, paint.numpy(), (patch * templates.weights).numpy())


def matching_errors(pixels: Tensor, templates: Templates) -> Tensor:  # (3, H, W) -> (C, rows, columns)
    """Mean squared difference of the object's pixels from the frame, at every position inside it."""
    weights, count = templates.weights, 3 * templates.weights.sum()
    energy = F.conv2d(pixels.square().sum(dim=0)[None, None], weights[None, None])[0]
    correlation = F.conv2d(pixels[None], templates.colors)[0]
    own = templates.colors.square().sum(dim=(1, 2, 3))
    return (energy - 2 * correlation + own[:, None, None]).clamp_min(0) / count


def color_error(detection: Detection, templates: Templates) -> float:
    """Euclidean distance of the paint's mean color from that of the scene, each channel from 0 to 1."""
    expected = (templates.colors[templates.expected] * templates.paint).sum(dim=(1, 2)).numpy()
    return float(np.linalg.norm(detection.color - expected))


def expected_speed(scene: Scene) -> float:
    """Mean speed of the scene's motion, in frame heights per second, between frames at the probe's rate."""
    seconds = torch.arange(SPEED_FRAMES)[None] / PROBE_FPS
    x, y = position([scene], seconds, SIZE[1] / SIZE[0])
    return float(torch.hypot(x.diff(), y.diff()).mean() * PROBE_FPS)


def _minimum(errors: Tensor, at: int) -> float:
    """Offset of the minimum of a parabola through the smallest of the errors and its neighbors, -0.5 to 0.5."""
    if not 0 < at < len(errors) - 1:
        return 0.0
    before, here, after = (float(errors[at + step]) for step in (-1, 0, 1))
    curvature = before - 2 * here + after
    return 0.0 if curvature <= 0 else max(-0.5, min(0.5, (before - after) / (2 * curvature)))
