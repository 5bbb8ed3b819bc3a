"""Frames to another size, by one smooth filter that neither aliases nor shifts."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.video.encode import Frame


def fit(frame: Frame, size: tuple[int, int], sample_aspect: Fraction = Fraction(1)) -> Frame:
    """What the model sees of an upright frame: scaled to cover `size` (height, width), centre-cropped, square pixels.

    `sample_aspect` is the width of the frame's pixels over their height.
    """
    return _cover(frame, size, sample_aspect)


def unfit(frame: Frame, width: int, height: int, sample_aspect: Fraction = Fraction(1)) -> Frame:
    """The model's frame at the input's size: scaled to cover it and centre-cropped, so that nothing is distorted."""
    return _cover(frame, (height, width), 1 / sample_aspect)


def _cover(frame: Frame, size: tuple[int, int], aspect: Fraction) -> Frame:
    """Scale and crop, where a pixel going in is `aspect` times as wide as one coming out (both of one height)."""
    height, width = frame.shape[:2]
    scale = max(Fraction(size[0], height), size[1] / (width * aspect))
    rows = _weights(height, float(size[0] / scale), size[0])
    columns = _weights(width, float(size[1] / (scale * aspect)), size[1])
    tall = rows @ frame.reshape(height, -1).astype(np.float32)  # (H', W * 3)
    wide: NDArray[np.float32] = columns @ tall.reshape(size[0], width, 3)  # (H', W', 3)
    return np.clip(wide, 0, 255).round().astype(np.uint8)


@lru_cache(maxsize=8)
def _weights(count: int, span: float, out: int) -> NDArray[np.float32]:  # (out, count)
    """Each of `out` pixels as a mean of the `count` given, over the centred part `span` of them."""
    step = span / out
    reach = max(step, 1.0)  # wider than a pixel when shrinking, or it aliases
    centres = (count - span) / 2 + (np.arange(out) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(count) + 0.5)) / reach
    near = (1.5 * distance - 2.5) * distance**2 + 1  # Catmull-Rom
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights: NDArray[np.float64] = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    weights /= weights.sum(1, keepdims=True)
    return weights.astype(np.float32)
