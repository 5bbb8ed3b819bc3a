"""The options of a prompt timeline: a prompt that changes while the video runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands.options import WHAT, check_finite

At = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TIME PROMPT",
        help='A new prompt from a time on: --at 20s "a boat at night". Times are like 20s, 20.5 or 1:20; may be given '
        "several times, in order. What the new prompt leaves out stays as it was (pocket).",
        rich_help_panel=WHAT,
    ),
]
Timeline = Annotated[
    Path | None,
    typer.Option(
        help="File of new prompts instead of --at: lines like `20s: a boat at night`, or JSON.", rich_help_panel=WHAT
    ),
]
Blend = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        callback=check_finite,
        help="Seconds over which a new prompt gradually replaces the one before; 0: at once.",
        rich_help_panel=WHAT,
    ),
]
