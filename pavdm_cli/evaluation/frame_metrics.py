"""Metrics of a video's frames and of neighboring frames, without a network: one number per frame."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
Gray = NDArray[np.uint8]  # (H, W)

APPEARANCE = ("brightness", "contrast", "saturation", "sharpness", "noise")  # of one frame
CHANGES = ("change", "color_similarity", "shift_x", "shift_y")  # of a frame and the one before
FLOW = ("motion", "unpredicted", "predictable")  # of a frame and one or two before, by optical flow
SHIFT_SIDE = 256  # pixels: larger frames are reduced before their global shift is measured
FLOW_SIDE = 256  # pixels: smaller frames are enlarged for optical flow, which needs a minimum size
# Difference of Laplacians, which ignores straight edges (Immerkaer 1996, "Fast noise variance estimation").
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
LOWER_HALF = 0.3246 * 6  # mean of the smaller half of the kernel's responses to unit Gaussian noise


@dataclass(slots=True)
class FrameSeries:
    """Metrics of every frame so far, by name; those of CHANGES and FLOW begin with the second or third frame."""

    values: dict[str, array[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Append one value to each of the named series."""
        for name, value in values.items():
            self.values.setdefault(name, array("d")).append(value)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self.values.get(name, ()), np.float64)


class FrameMeter:
    """Adds the metrics of one frame after another to a `FrameSeries`; keeps the last two frames."""

    def __init__(self, fps: float, flow: bool = False) -> None:
        self.series = FrameSeries()
        self._fps, self._flow = fps, _flow_estimator() if flow else None
        self._grays: deque[Gray] = deque(maxlen=3)
        self._colors: NDArray[np.float64] | None = None

    def add(self, frame: Frame) -> None:
        """Measure the next frame."""
        import cv2

        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        colors = color_histogram(frame)
        self._grays.append(gray)
        self.series.add(**appearance(frame, gray))
        if self._colors is not None:
            before = self._grays[-2]
            shift_x, shift_y = global_shift(before, gray)
            similarity = float(colors @ self._colors)
            self.series.add(change=mean_difference(before, gray), color_similarity=similarity)
            self.series.add(shift_x=shift_x, shift_y=shift_y)
        self._colors = colors
        if self._flow is not None:
            self._add_flow(self._flow)

    def _add_flow(self, estimator: Any) -> None:
        grays = [_enlarge(gray) for gray in self._grays]
        if len(grays) >= 2:
            flow = estimator.calc(grays[-2], grays[-1], None)
            self.series.add(motion=largest_motion(flow) * self._fps / grays[-1].shape[0])
        if len(grays) == 3:
            error, change = unpredicted_change(estimator, *grays)
            self.series.add(unpredicted=error, predictable=change)


def appearance(frame: Frame, gray: Gray) -> dict[str, float]:
    """The metrics of APPEARANCE, each 0 to 1: mean and deviation of luma, saturation, gradient, noise deviation."""
    import cv2

    mean, deviation = cv2.meanStdDev(gray)
    red, green, blue = cv2.split(frame)
    saturation = cv2.max(cv2.max(red, green), blue).mean() - cv2.min(cv2.min(red, green), blue).mean()
    response = cv2.filter2D(gray, cv2.CV_32F, NOISE_KERNEL)
    sharpness = mean_difference(gray[1:], gray[:-1]) + mean_difference(gray[:, 1:], gray[:, :-1])
    return {
        "brightness": float(mean[0, 0]) / 255,
        "contrast": float(deviation[0, 0]) / 255,
        "saturation": float(saturation) / 255,
        "sharpness": sharpness,
        "noise": lower_half_mean(np.abs(response[1:-1:2, 1:-1:2])) / LOWER_HALF / 255,
    }


def lower_half_mean(values: NDArray[np.float32]) -> float:
    """Mean of the smaller half of the values, which excludes edges and texture."""
    half = max(1, values.size // 2)
    return float(np.partition(values, half - 1, axis=None)[:half].mean())


def mean_difference(a: Gray, b: Gray) -> float:
    """Mean absolute difference of two images, 0 to 1."""
    import cv2

    return float(cv2.norm(a, b, cv2.NORM_L1)) / a.size / 255


def color_histogram(frame: Frame, bins: int = 4, bands: int = 3) -> NDArray[np.float64]:
    """Square roots of the color shares in horizontal bands, a unit vector: compare by cosine similarity."""
    import cv2

    edges = np.linspace(0, frame.shape[0], bands + 1).astype(int)
    shares = [
        cv2.calcHist([frame[top:bottom]], [0, 1, 2], None, [bins] * 3, [0, 256] * 3).ravel()
        for top, bottom in pairwise(edges)
    ]
    histogram = np.sqrt(np.concatenate(shares).astype(np.float64))
    return np.asarray(histogram / (np.linalg.norm(histogram) + 1e-12))


def global_shift(before: Gray, after: Gray) -> tuple[float, float]:
    """Shift of the whole frame in pixels, right and down, by phase correlation."""
    import cv2

    reduction = max(1, int(np.ceil(max(before.shape) / SHIFT_SIDE)))
    first, second = (gray[::reduction, ::reduction].astype(np.float32) for gray in (before, after))
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
    (right, down), _ = cv2.phaseCorrelate(first, second, window)
    return right * reduction, down * reduction


def largest_motion(flow: NDArray[np.float32]) -> float:  # (H, W, 2)
    """Mean of the largest 5 % of flow vectors, in pixels: dynamic degree of one pair of frames, as in VBench."""
    lengths = np.hypot(flow[..., 0], flow[..., 1]).ravel()
    count = max(1, len(lengths) // 20)
    return float(np.partition(lengths, -count)[-count:].mean())


def unpredicted_change(estimator: Any, before: Gray, middle: Gray, after: Gray) -> tuple[float, float]:
    """Mean error of the middle frame predicted by optical flow, and its mean change to its neighbors; 0 to 1."""
    import cv2

    height, width = middle.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    half = estimator.calc(before, after, None) / 2
    forward = cv2.remap(before, x - half[..., 0], y - half[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    backward = cv2.remap(after, x + half[..., 0], y + half[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    prediction = np.asarray(cv2.addWeighted(forward, 0.5, backward, 0.5, 0), np.uint8)
    change = (mean_difference(before, middle) + mean_difference(middle, after)) / 2
    return mean_difference(prediction, middle), change


def _flow_estimator() -> Any:
    import cv2

    return cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_FAST)


def _enlarge(gray: Gray) -> Gray:
    """The frame enlarged by an integer factor where it is small."""
    import cv2

    factor = max(1, int(np.ceil(FLOW_SIDE / min(gray.shape))))
    size = (gray.shape[1] * factor, gray.shape[0] * factor)
    return gray if factor == 1 else np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC), np.uint8)
