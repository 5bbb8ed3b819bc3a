"""Applies the probe to a video frame by frame: features, words and object counts, with one clip in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from pavdm_cli.evaluation.distances import DIMENSIONS
from pavdm_cli.evaluation.island_shift import island_shift
from pavdm_cli.evaluation.metrics import ground_shift
from pavdm_cli.evaluation.probe import ATTRIBUTES, CLIP_FRAMES, COUNTS, PROBE_FPS, SHIPPED, SIZE, Probe, load
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.pocket_world.weather import light_of

SCALE = 3.0  # divides features: about their standard deviation over real clips
CLIP_STRIDE = CLIP_FRAMES // 2  # frames from one clip to the next: clips of four seconds, every two
MIN_PAN = 4  # pixels in CLIP_STRIDE frames; a pan moves the ground by 12 or more
MIN_ISLAND_PAN = 3  # a pan moves islands by 6

Frame = NDArray[np.uint8]  # (H, W, 3), RGB


class Resampler:
    """Resamples frames to the probe's frame rate and size."""

    def __init__(self, fps: float) -> None:
        self._fps, self._frames, self._taken = fps, 0, 0

    def add(self, frame: Frame) -> list[Frame]:
        """The next frame at the probe's size, repeated as often as it is shown at the probe's rate, possibly never."""
        self._frames += 1
        count = int(np.ceil(self._frames * PROBE_FPS / self._fps - 1e-6)) - self._taken
        self._taken += count
        return [resize_to_probe(frame)] * count if count else []


def resize_to_probe(frame: Frame) -> Frame:
    """Resize a frame to the probe's size; its aspect ratio is not preserved."""
    import cv2

    size = SIZE[1], SIZE[0]
    if frame.shape[:2] == SIZE:
        return frame
    shrinks = frame.shape[0] >= SIZE[0] and frame.shape[1] >= SIZE[1]
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8)


class ProbeMeter:
    """Reads four-second clips, one every two seconds, and with `counting` the object count of every frame.

    An incomplete clip at the end is dropped; a video of less than four seconds has no clip.
    """

    def __init__(self, counting: bool = True) -> None:
        self._probe, self._counting = shipped_probe(), counting
        self._frames: deque[Frame] = deque(maxlen=CLIP_FRAMES)
        self._until_clip = CLIP_FRAMES
        self.features: list[NDArray[np.float64]] = []  # (DIMENSIONS,) each
        self.words: list[Mapping[str, str]] = []  # by attribute, of each clip
        self.counts: list[str] = []  # values of COUNTS

    @torch.no_grad()
    def add(self, frame: Frame) -> None:
        """Read the next frame at the probe's rate and size."""
        self._frames.append(frame)
        if self._counting:
            self.counts.append(COUNTS[int(self._probe.counter(from_bytes(frame)[None]).argmax())])
        self._until_clip -= 1
        if self._until_clip:
            return
        self._until_clip = CLIP_STRIDE
        features = self._probe.reader.features(from_bytes(np.stack(self._frames))[None])
        scores = self._probe.reader.classify(features)
        words = {name: ATTRIBUTES[name][int(score.argmax())] for name, score in scores.items()}
        self.words.append(words | {"camera": camera_motion(np.stack(self._frames), words)})
        self.features.append(features[0].double().numpy() @ projection(features.shape[1]))


def camera_motion(clip: NDArray[np.uint8], words: Mapping[str, str]) -> str:  # (CLIP_FRAMES, H, W, 3)
    """How the camera moves, by registering the ground or islands: the probe takes a moving object for a pan.

    words: place, time of day and weather. Empty over a sea without an island in sight.
    """
    if words["terrain"] == "sea":
        light = light_of(words["time"], words["weather"])
        shift, least = island_shift(clip, light, gap=CLIP_STRIDE), MIN_ISLAND_PAN
    else:
        shift, least = ground_shift(from_bytes(clip), gap=CLIP_STRIDE), MIN_PAN
    if shift is None:
        return ""
    return "still" if abs(shift) < least else "left" if shift > 0 else "right"


@cache
def shipped_probe() -> Probe:
    """The bundled probe."""
    return load(SHIPPED)


@cache
def projection(width: int) -> NDArray[np.float64]:  # (width, DIMENSIONS)
    """Fixed orthonormal directions, divided by SCALE; distances keep their order."""
    directions = np.random.Generator(np.random.Philox(0)).standard_normal((width, DIMENSIONS))
    return np.asarray(np.linalg.qr(directions)[0] / SCALE)
