"""A clean synthetic video, and the ways in which generated long videos fail, each applied on purpose."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

FRAMES, FPS, CHUNK = 96, 8.0, 4
Video = np.ndarray  # (n, H, W, 3), uint8 RGB


def clean(seed: int = 0, count: int = FRAMES, size: tuple[int, int] = (72, 108)) -> Video:
    """A textured background that pans steadily, and a disc that moves to and fro in front of it."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.uniform(40, 215, (height // 8 + 2, (width + 2 * count) // 8 + 2, 3)).astype(np.float32)
    background = cv2.resize(coarse, (width + 2 * count, height), interpolation=cv2.INTER_CUBIC)
    color = rng.uniform(0, 255, 3)
    y, x = np.mgrid[:height, :width]
    frames = []
    for t in range(count):
        start = 1.5 * t
        shift = np.float32([[1, 0, -(start % 1)], [0, 1, 0]])
        view = cv2.warpAffine(background[:, int(start) : int(start) + width + 1], shift, (width, height))
        center = width / 2 + width / 4 * np.sin(t / 12), height / 2 + height / 6 * np.cos(t / 9)
        disc = np.clip(10 - np.hypot(x - center[0], y - center[1]), 0, 1)[..., None]
        frames.append(view * (1 - disc) + color * disc)
    return to_bytes(np.stack(frames))


def to_bytes(video: np.ndarray) -> Video:
    return np.clip(np.round(video), 0, 255).astype(np.uint8)


def ramp(video: Video) -> np.ndarray:
    """0 at the first frame, 1 at the last."""
    return np.linspace(0, 1, len(video))[:, None, None, None]


def blur(video: Video) -> Video:
    return np.stack([cv2.GaussianBlur(f, (0, 0), 0.05 + 1.8 * k / len(video)) for k, f in enumerate(video)])


def noise(video: Video) -> Video:
    return to_bytes(video + 12 * ramp(video) * np.random.default_rng(1).standard_normal(video.shape))


def gray(video: Video) -> np.ndarray:
    return video.mean(3, keepdims=True)


def hop(video: Video) -> Video:
    """Time skips at every chunk border; the video turns back where it would end."""
    times = np.arange(len(video)) + 3 * (np.arange(len(video)) // CHUNK)
    cycle = times % (2 * len(video) - 2)
    return video[np.where(cycle < len(video), cycle, 2 * len(video) - 2 - cycle)]


def cut(video: Video) -> Video:
    half = len(video) // 2
    return np.concatenate([video[:half], clean(7)[half:]])


def jitter(video: Video) -> Video:
    rng = np.random.default_rng(2)
    size = video.shape[2], video.shape[1]
    moves = [np.float32([[1, 0, dx], [0, 1, dy]]) for dx, dy in rng.normal(0, 1.5, (len(video), 2))]
    pairs = zip(video, moves, strict=True)
    return np.stack([cv2.warpAffine(f, move, size, borderMode=cv2.BORDER_REFLECT) for f, move in pairs])


def flicker(video: Video) -> Video:
    return to_bytes(video * (1 + 0.04 * np.random.default_rng(3).standard_normal((len(video), 1, 1, 1))))


def collapse(video: Video) -> Video:
    """The picture dissolves into noise over its second half."""
    weight = np.clip(2 * ramp(video) - 1, 0, 1)
    return to_bytes(video * (1 - weight) + weight * np.random.default_rng(4).uniform(0, 255, video.shape))


def dissolve(video: Video) -> Video:
    """What moves fades into what stays."""
    weight = 0.8 * ramp(video)
    return to_bytes(video * (1 - weight) + weight * np.median(video, 0))


CORRUPTIONS: dict[str, Callable[[Video], Video]] = {
    "exposure drift": lambda video: to_bytes(video * (1 + 0.25 * ramp(video))),
    "saturation drift": lambda video: to_bytes(gray(video) + (video - gray(video)) * (1 + 0.4 * ramp(video))),
    "blur": blur,
    "noise": noise,
    "chunk jumps": hop,
    "held frames": lambda video: video[np.arange(len(video)) // CHUNK * CHUNK],
    "cut": cut,
    "jitter": jitter,
    "flicker": flicker,
    "static": lambda video: np.repeat(video[:1], len(video), 0),
    "collapse": collapse,
    "dissolving object": lambda video: to_bytes(
        video * (1 - 0.8 * ramp(video)) + 0.8 * ramp(video) * np.median(video, 0)
    ),
}
