"""Contact sheets: a grid of frames in one PNG."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def write_contact_sheet(path: Path, frames: Pixels, gap: int = 2) -> None:
    """Write frames (rows, columns, H, W, 3) as one PNG with white gaps."""
    cells = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    write_png(path, rearrange(cells, "r c h w k -> (r h) (c w) k"))


def write_png(path: Path, image: Pixels) -> None:  # (H, W, 3)
    """Encode with FFmpeg, so that Pillow is not needed."""
    with av.open(str(path), "w", format="image2") as container:
        stream: Any = container.add_stream("png", rate=Fraction(1))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
