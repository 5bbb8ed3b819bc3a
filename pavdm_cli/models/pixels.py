"""Frames as tensors from 0 to 1, and as bytes in files."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PLAUSIBLE = 1e9  # of absolute values: decoders give up to 1.2, with random weights up to 1e7


def to_unit(frames: Tensor) -> Tensor:
    """Frames clamped to 0 to 1; all NaN if any value is not finite or implausibly large, which clamping would hide.

    The check allocates no tensor of that size and does not synchronize with the device.
    """
    low, high = torch.aminmax(frames)
    sound = (low >= -MAX_PLAUSIBLE) & (high <= MAX_PLAUSIBLE)
    return frames.clamp(0, 1).add_(torch.where(sound, 0.0, float("nan")))


def to_bytes(frames: Tensor) -> NDArray[np.uint8]:  # (..., 3, H, W) -> (..., H, W, 3)
    """Frames from 0 to 1, rounded to 0 to 255."""
    pixels: NDArray[np.uint8] = (frames.float().clamp(0, 1) * 255 + 0.5).byte().movedim(-3, -1).cpu().numpy()
    return pixels


def from_bytes(frames: NDArray[np.uint8]) -> Tensor:  # (..., H, W, 3) -> (..., 3, H, W)
    """Bytes to float32 from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float().div_(255)
