"""Frames enlarged by a whole number as they are written, and brought back to their own size as they are read again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
FILTERS = {"lanczos": Interpolation.LANCZOS | Interpolation.ACCURATE_RND, "nearest": Interpolation.POINT}
REACH = 3  # pixels that swscale's Lanczos filter reaches to either side


@dataclass(frozen=True, slots=True)
class Scale:
    """By how much frames are enlarged, and by which of FILTERS."""

    factor: int = 1
    filter: str = "lanczos"

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The enlarged size, in the same order."""
        return size[0] * self.factor, size[1] * self.factor


class Upscaler:
    """Enlarges one frame after another by swscale."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._scaler = VideoReformatter()

    def __call__(self, frame: Frame) -> Frame:  # (H, W, 3) -> (factor H, factor W, 3)
        """The frame enlarged.

        Its channels are passed as the planes of a 4:4:4 picture, each of which is filtered alone: no colour conversion.
        """
        height, width = self.scale.size((frame.shape[0], frame.shape[1]))
        planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(2, 0, 1)), format="yuv444p")
        filtered = self._scaler.reformat(
            planes, width=width, height=height, interpolation=FILTERS[self.scale.filter], threads=1
        )
        return np.ascontiguousarray(filtered.to_ndarray().transpose(1, 2, 0)).astype(np.uint8, copy=False)


def downscale(frame: Frame, scale: Scale) -> Frame:  # (factor H, factor W, 3) -> (H, W, 3)
    """The frame whose enlargement is closest to this one, by least squares: the encoder's errors average out."""
    rows, columns = (_inverse(side // scale.factor, scale) for side in frame.shape[:2])
    small = rows @ frame.transpose(2, 0, 1).astype(np.float32) @ columns.T  # (3, H, W)
    return np.ascontiguousarray(np.clip(small, 0, 255).round().astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=8)
def _inverse(count: int, scale: Scale) -> NDArray[np.float32]:  # (count, factor * count)
    """The pseudo-inverse of enlarging a line of `count` pixels."""
    return np.linalg.pinv(_weights(count, scale)).astype(np.float32)


def _weights(count: int, scale: Scale) -> NDArray[np.float64]:  # (factor * count, count)
    """Each pixel of an enlarged line as a mean of the `count` given; the outermost ones go on beyond the edge."""
    centres = (np.arange(count * scale.factor) + 0.5) / scale.factor - 0.5
    nearest = np.floor(centres + 0.5).astype(int)
    weights: NDArray[np.float64] = np.zeros((len(centres), count))
    for near in range(-REACH, REACH + 1) if scale.filter == "lanczos" else (0,):
        distance = centres - (nearest + near)
        weight = np.where(abs(distance) < REACH, np.sinc(distance) * np.sinc(distance / REACH), 0)
        weights[np.arange(len(centres)), np.clip(nearest + near, 0, count - 1)] += weight
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
