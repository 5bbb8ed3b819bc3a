"""The options for a video's length, which may be endless."""

from __future__ import annotations

from typing import Annotated

import typer

from pavdm_cli.commands.options import VIDEO_PANEL
from pavdm_cli.generation.timeline import parse_seconds

TIMES = "a number of seconds or a time such as 90s, 1:30 or 1m30s"
FOREVER_HELP = "or 'forever' to run until Ctrl-C, which finishes the file"
LENGTH = "TIME|forever"  # metavar

Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        "-s",
        parser=parse_seconds,
        metavar=LENGTH,
        help=f"Length, default 10: {TIMES}, {FOREVER_HELP}.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
FrameCount = Annotated[
    int | None,
    typer.Option(
        "--frames",
        help="Length in frames, instead of --seconds. After --seconds forever: the frame at which to stop, as Ctrl-C "
        "would.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Loop = Annotated[
    bool,
    typer.Option(
        "--loop",
        help="Loop seamlessly: the last chunks are conditioned on the first two, so that the end leads into the start.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
