"""Options for the file that a video is written to, and for what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pavdm_cli.commands.options import FILE_PANEL

StreamOrFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File (mp4, mkv, webm or gif) or folder, or - for standard output; default: named after the prompt.",
        rich_help_panel=FILE_PANEL,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File (mp4, mkv, webm or gif) or folder; default: named after the input.",
        rich_help_panel=FILE_PANEL,
    ),
]
StreamFormat = Annotated[
    Literal["", "mp4", "y4m", "rawvideo"],
    typer.Option(
        metavar="mp4|y4m|rawvideo",
        show_default=False,
        help="With -o -: fragmented MP4 (the default), YUV4MPEG2, or raw RGB frames: "
        "pavdm generate PROMPT -o - | ffplay -",
        rich_help_panel=FILE_PANEL,
    ),
]
Crf = Annotated[
    int, typer.Option(help="Constant rate factor: 0 (best quality) to 51 (smallest file).", rich_help_panel=FILE_PANEL)
]
Scale = Annotated[
    int | None,
    typer.Option(
        help="Integer upscaling factor, 1 to 8. Default: the model's (pocket: 2, or 4 at 96x64).",
        rich_help_panel=FILE_PANEL,
    ),
]
ScaleFilter = Annotated[
    Literal["lanczos", "nearest"],
    typer.Option(help="lanczos: smooth. nearest: blocky pixels.", rich_help_panel=FILE_PANEL),
]
Encoder = Annotated[
    str,
    typer.Option(help="Encoder of ffmpeg (from PAVDM_FFMPEG or PATH), such as h264_nvenc.", rich_help_panel=FILE_PANEL),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help='Print the result as JSON, and an error as {"error": ...}.', rich_help_panel=FILE_PANEL
    ),
]
KeepState = Annotated[
    bool,
    typer.Option(
        "--keep-state",
        help="Keep the checkpoint and all latents of a complete video, for `redo`.",
        rich_help_panel=FILE_PANEL,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        "-f",
        help="Replace an existing file of that name, or a partial one left by an interrupted run.",
        rich_help_panel=FILE_PANEL,
    ),
]
