"""The options of a prompt timeline: a prompt that changes while the video runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands.options import VIDEO_PANEL
from pavdm_cli.generation.timeline import parse_duration

At = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TIME PROMPT",
        help='Switch to a new prompt at a time: --at 20s "a boat at night". Times are like 20s, 20.5 or 1:20; may be '
        "given several times, in order. pocket keeps what the new prompt does not mention.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Timeline = Annotated[
    Path | None,
    typer.Option(
        help="File of new prompts instead of --at: lines like `20s: a boat at night`, or JSON.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Blend = Annotated[
    float,
    typer.Option(
        parser=lambda text: parse_duration(text, "--blend"),
        metavar="TIME",
        help="Seconds, or a time such as 5s, over which to blend from one prompt to the next; 0: switch immediately.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
