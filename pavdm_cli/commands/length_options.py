"""The options for a video's length, which may be endless."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from pavdm_cli.commands.options import VIDEO_PANEL
from pavdm_cli.errors import UsageError

FOREVER_TEXT = "forever"


def parse_seconds(text: str | float) -> float | str:
    """Seconds of video, or "forever". Raises: UsageError."""
    if text == FOREVER_TEXT:
        return FOREVER_TEXT
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a number or {FOREVER_TEXT}, got {text!r}", "for example --seconds 60")
    return seconds


Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        "-s",
        parser=parse_seconds,
        metavar="SECONDS|forever",
        help="Length in seconds, default 10, or 'forever' to run until Ctrl-C, which finishes the file.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
FrameCount = Annotated[
    int | None, typer.Option("--frames", help="Length in frames, instead of --seconds.", rich_help_panel=VIDEO_PANEL)
]
Loop = Annotated[
    bool,
    typer.Option(
        "--loop",
        help="Loop seamlessly: the last chunks are conditioned on the first two, so that the end leads into the start.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
