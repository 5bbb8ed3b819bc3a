"""Prints what a command wrote: the path on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from pavdm_cli import ui
from pavdm_cli.commands.progress import print_speed
from pavdm_cli.commands.stream_output import report_stream
from pavdm_cli.errors import OutputError
from pavdm_cli.generation.request import STDOUT_PATH
from pavdm_cli.runtime import streams
from pavdm_cli.runtime.interrupt import INTERRUPTED
from pavdm_cli.runtime.printable import command_line, pluralize

if TYPE_CHECKING:
    from pavdm_cli.generation.write import WriteResult


def report(
    result: WriteResult,
    *,
    video_seconds: float,
    wall_seconds: float,
    as_json: bool,
    missing: Sequence[int] = (),
    exit_code: int = INTERRUPTED,
    num_before: int = 0,
) -> None:
    """Print the path to stdout. An interrupted video is reported on stderr, and on stdout only with --json.

    missing: seeds not generated; exit_code: for an interrupted video; num_before: frames copied, or of an earlier run.
    """
    if result.path == STDOUT_PATH:
        return report_stream(result, video_seconds=video_seconds, wall_seconds=wall_seconds, exit_code=exit_code)
    if not result.is_complete:
        part = f"kept {result.path}, {pluralize(result.frames, 'frame')}"
        message = f"interrupted: {part if result.frames else 'no frame was finished, so nothing was saved'}"
        command = result.resume_command or command_line(("pavdm", "extend"), str(result.path))
        hint = f"`{command}` continues it" if result.frames or result.resume_command else "run it again"
        path = str(result.path) if result.frames else None
        report_interrupt(message, hint, as_json, missing, path=path, frames=result.frames, exit_code=exit_code)
        raise typer.Exit(exit_code)
    for line in result.notes:
        ui.note(line)
    print_speed(result, video_seconds, wall_seconds, num_before)
    row = {
        "path": str(result.path),
        "frames": result.frames,
        "video_seconds": round(video_seconds, 3),
        "wall_seconds": round(wall_seconds, 3),
        "metadata": result.metadata,
    }
    print(json.dumps(row) if as_json else result.path)
    if error := streams.first_error(sys.stdout):
        raise OutputError(
            f"cannot print the path to standard output: {error.strerror}", f"the video is complete: {result.path}"
        )


def report_interrupt(
    message: str, hint: str, as_json: bool, missing: Sequence[int], **fields: str | int | None
) -> None:
    """Report what was saved and what is missing, even with --quiet: hours of work may be at stake."""
    ui.info(message, always=True)
    if hint:
        ui.hint(hint)
    if missing:
        seeds = f"seed {missing[0]}" if len(missing) == 1 else f"seeds {missing[0]} to {missing[-1]}"
        ui.info(f"not generated: {seeds}; --seed {missing[0]} -n {len(missing)} makes the rest", always=True)
    if as_json:
        error = {"kind": "Interrupted", "message": message, "hint": hint}
        print(json.dumps({"error": error | fields | {"missing_seeds": list(missing)}}))
