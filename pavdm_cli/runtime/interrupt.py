"""The output of an interrupted process that has nothing to save. Imports nothing: it is needed before anything is."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing `typing` for it takes as long as all else before signals are handled
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130  # the exit code of a process that its user ended
STOPPED = 75  # of one that a scheduler ended: EX_TEMPFAIL, "try again later"
SCHEDULER = ("SIGTERM", "SIGUSR1", "SIGXCPU")  # its signals: Slurm sends the second before the time limit
ERROR = '{"error": {"kind": "Interrupted", "message": "interrupted", "hint": "", "exit_code": %d}}'


class Interrupted(KeyboardInterrupt):
    """A signal, with the exit code that it asks for."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def exit_code_of(number: int) -> int:
    """The exit code of a process that this signal ends."""
    import signal

    return STOPPED if signal.Signals(number).name in SCHEDULER else INTERRUPTED


def interrupt_lines(code: int = INTERRUPTED) -> dict[int, str]:
    """What to write, by file descriptor; of several processes that torchrun started, the first alone says it."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0":
        return {}
    return {2: "interrupted"} | ({1: ERROR % code} if "--json" in sys.argv else {})


def exit_interrupted(code: int = INTERRUPTED) -> NoReturn:
    """Say so past all buffers and end without unwinding; a terminal gets back the cursor that a progress bar hides.

    Further signals are ignored: one that came while the line is written would write it again.
    """
    import signal  # imported already wherever a handler calls this

    for name in ("SIGINT", "SIGHUP", *SCHEDULER):
        try:  # noqa: SIM105 - contextlib need not be imported yet
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        except (AttributeError, ValueError):  # a system without it; not the main thread
            pass
    for descriptor, line in interrupt_lines(code).items():
        try:
            show_cursor = "\x1b[?25h" if os.isatty(descriptor) else ""
            os.write(descriptor, f"{show_cursor}{line}\n".encode())
        except OSError:
            pass
    os._exit(code)
