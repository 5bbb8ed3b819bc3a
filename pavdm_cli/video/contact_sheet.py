"""Contact sheets: a grid of frames in one PNG."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video.io.frames import read_frames_at
from pavdm_cli.video.io.info import VideoInfo

Pixels = NDArray[np.uint8]
ROWS, COLUMNS = 4, 6  # of the sheet of a video
MAX_WIDTH = 320  # pixels of a frame in it


def write_contact_sheet(path: Path, frames: Pixels, gap: int = 2) -> None:
    """Write frames (rows, columns, H, W, 3) as one PNG with white gaps."""
    cells = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    write_png(path, rearrange(cells, "r c h w k -> (r h) (c w) k"))


def write_video_sheet(path: Path, video: VideoInfo) -> None:
    """Write frames of a video at equal intervals, row by row. Raises: OutputError, InputError."""
    count = min(ROWS * COLUMNS, max(1, video.frames))
    columns = min(COLUMNS, count)
    count -= count % columns
    width = min(MAX_WIDTH, round(video.width * video.sample_aspect_ratio))
    height = max(1, round(width * Fraction(video.height, video.width) / video.sample_aspect_ratio))
    times = [video.start + video.duration * number / count for number in range(count)]
    frames = np.stack(list(read_frames_at(video, times, (height, width))))
    try:
        write_contact_sheet(path, rearrange(frames, "(r c) h w k -> r c h w k", c=columns))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another place with --sheet") from None


def check_sheet(path: Path) -> None:
    """Reject a contact sheet that cannot be written. Raises: UsageError, OutputError."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"--sheet must end in .png, got {path.name!r}", "for example --sheet boat.png")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path}", "it is a folder, or its parent folder does not exist")


def write_png(path: Path, image: Pixels) -> None:  # (H, W, 3)
    """Encode with FFmpeg, so that Pillow is not needed."""
    options = {"update": "1"}  # the name is no pattern for numbers
    with av.open(str(path.absolute()), "w", format="image2", options=options) as container:
        stream: Any = container.add_stream("png", rate=Fraction(1))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
