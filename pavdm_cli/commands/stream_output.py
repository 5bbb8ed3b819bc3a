"""`-o -`: video on standard output; nothing else may be printed there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from pavdm_cli import ui
from pavdm_cli.commands.progress import print_speed
from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.generation.request import Request
from pavdm_cli.runtime import streams

if TYPE_CHECKING:
    from pavdm_cli.generation.write import WriteResult

STDOUT = 1  # file descriptor


def check_stream(request: Request, as_json: bool, count: int = 1) -> None:
    """Reject options that conflict with `-o -`, and `--stream-format` without it. Raises: UsageError, OutputError."""
    output = request.output
    if not output.is_stdout:
        if output.stream_format:
            raise UsageError("--stream-format needs -o -", "a file's format follows from its suffix")
        return
    reasons = {
        "--json, which prints its result there": as_json,
        f"-n {count}: a stream holds a single video": count > 1,
        "--keep-state: a stream cannot be resumed": output.keep_state,
        "--encoder, which writes files": bool(output.encoder),
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        raise UsageError(f"-o - cannot be combined with {reason}", "omit it, or write a file")
    if os.isatty(STDOUT):
        hint = "pipe it, as in `pavdm generate PROMPT -o - | ffplay -`, or name a file"
        raise UsageError("-o - writes video data, and standard output is a terminal", hint)
    if error := streams.first_error(sys.stdout):
        raise OutputError(f"cannot write to standard output: {error.strerror}", "pipe it, or name a file")


def report_stream(result: WriteResult, *, video_seconds: float, wall_seconds: float, exit_code: int) -> None:
    """Report the result on stderr. Raises: Exit where it was interrupted."""
    for line in result.notes:
        ui.note(line)
    if not result.is_complete:
        ui.info(f"interrupted after {video_seconds:.1f} s of video", always=True)
        raise typer.Exit(exit_code)
    print_speed(result, video_seconds, wall_seconds)
