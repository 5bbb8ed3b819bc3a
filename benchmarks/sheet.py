"""A contact sheet of a video: `python benchmarks/sheet.py VIDEO PNG [SECONDS BETWEEN FRAMES] [COLUMNS]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pavdm_cli.video import FrameReader, open_video
from pavdm_cli.video.contact_sheet import write_contact_sheet


def main(video: str, png: str, interval: str = "2", columns: str = "6") -> None:
    """Write one frame per interval, row by row; an incomplete last row is left out."""
    source = open_video(video)
    step = round(float(interval) * source.rate)
    frames = [frame for number, (frame, _) in enumerate(FrameReader(source)) if number % step == 0]
    count = min(int(columns), len(frames))  # of a row
    rows = len(frames) // count
    write_contact_sheet(Path(png), np.stack(frames[: rows * count]).reshape(rows, count, *frames[0].shape))


if __name__ == "__main__":
    main(*sys.argv[1:])
