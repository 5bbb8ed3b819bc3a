"""Upscale frames by an integer factor when writing, and recover the original size when reading."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
FILTERS = {"lanczos": Interpolation.LANCZOS | Interpolation.ACCURATE_RND, "nearest": Interpolation.POINT}
RADIUS = 3  # of swscale's Lanczos filter, in pixels


@dataclass(frozen=True, slots=True)
class Scale:
    """Upscaling factor and the name of a filter in FILTERS."""

    factor: int = 1
    filter: str = "lanczos"

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The upscaled size, in the same order."""
        return size[0] * self.factor, size[1] * self.factor


class Upscaler:
    """Upscales frames with swscale."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> Frame:  # (H, W, 3) -> (factor H, factor W, 3)
        """Pass R, G and B as the planes of a 4:4:4 frame: each is filtered alone, without a color conversion."""
        height, width = self.scale.size((frame.shape[0], frame.shape[1]))
        planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(2, 0, 1)), format="yuv444p")
        scaled_frame = self._reformatter.reformat(
            planes, width=width, height=height, interpolation=FILTERS[self.scale.filter], threads=1
        )
        return np.ascontiguousarray(scaled_frame.to_ndarray().transpose(1, 2, 0)).astype(np.uint8, copy=False)


def downscale(frame: Frame, scale: Scale) -> Frame:  # (factor H, factor W, 3) -> (H, W, 3)
    """The least-squares inverse of upscaling, which averages out the errors of the encoder."""
    rows, columns = (_pseudo_inverse(side // scale.factor, scale) for side in frame.shape[:2])
    small = rows @ frame.transpose(2, 0, 1).astype(np.float32) @ columns.T  # (3, H, W)
    return np.ascontiguousarray(np.clip(small, 0, 255).round().astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=8)
def _pseudo_inverse(count: int, scale: Scale) -> NDArray[np.float32]:  # (count, factor * count)
    return np.linalg.pinv(_filter_matrix(count, scale)).astype(np.float32)


def _filter_matrix(count: int, scale: Scale) -> NDArray[np.float64]:  # (factor * count, count)
    """The matrix that upscales a line of `count` pixels; edge pixels are repeated beyond the border."""
    centers = (np.arange(count * scale.factor) + 0.5) / scale.factor - 0.5
    nearest = np.floor(centers + 0.5).astype(int)
    weights: NDArray[np.float64] = np.zeros((len(centers), count))
    for tap in range(-RADIUS, RADIUS + 1) if scale.filter == "lanczos" else (0,):
        distance = centers - (nearest + tap)
        weight = np.where(abs(distance) < RADIUS, np.sinc(distance) * np.sinc(distance / RADIUS), 0)
        weights[np.arange(len(centers)), np.clip(nearest + tap, 0, count - 1)] += weight
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
