"""The frames of a video file, decoded with PyAV alone."""

from pathlib import Path

import av
import numpy as np


def decoded_frames(path: str | Path, **options: object) -> np.ndarray:  # (N, H, W, 3)
    """RGB frames; options: of PyAV's reformatter. One thread: beside other tests, more wait long for one another."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24", threads=1, **options) for frame in file.decode(video=0)])
