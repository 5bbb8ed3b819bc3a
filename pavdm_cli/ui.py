"""Terminal output: messages, tables and progress bars. The only file that imports rich."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pavdm_cli.errors import PavdmError
from pavdm_cli.runtime.printable import format_estimate, printable

UNWRAPPED_WIDTH = 10_000  # columns
SECONDS_BETWEEN_LINES = 5.0  # seconds, where there is no terminal
RATE = "{task.fields[rate]}/s"  # the speed, in units per second
ABORTED = "aborted: nothing was changed"
EARLY_SHARE = 0.05  # of the work, before which no time left is shown


QUIET, NORMAL, VERBOSE = 0, 1, 2
_verbosity = ContextVar("verbosity", default=NORMAL)


def set_verbosity(level: int) -> None:
    """QUIET prints only errors; NORMAL adds notes and progress; VERBOSE adds details."""
    _verbosity.set(level)


class Advance(Protocol):
    """Callback: units done since the last call, and text to show next to the bar."""

    def __call__(self, units: int, label: str = "") -> None: ...


def info(line: str, *, always: bool = False) -> None:
    """Print a line to stderr; always: even with --quiet."""
    if always or _verbosity.get() > QUIET:
        _say(Text(printable(line)))


def detail(line: str) -> None:
    """Print a line to stderr with --verbose."""
    if _verbosity.get() >= VERBOSE:
        _say(Text(printable(line)))


def note(line: str) -> None:
    """Print a line to stderr with a highlighted `note:` prefix."""
    if _verbosity.get() > QUIET:
        _say(Text.assemble(("note: ", "yellow"), printable(line)))


def fail(message: str, hint_text: str, error: BaseException | None = None) -> None:
    """Print `error:` and `hint:` lines, after the traceback with --verbose."""
    if error is not None and _verbosity.get() >= VERBOSE:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(printable(line), file=sys.stderr)
    _say(Text.assemble(("error: ", "bold red"), printable(message)))
    if hint_text:
        hint(hint_text)


def hint(line: str) -> None:
    """Print a `hint:` line to stderr."""
    _say(Text.assemble(("hint: ", "cyan"), printable(line)))


def print_lines(lines: Sequence[str]) -> None:
    """Print lines to stdout with control characters escaped; paths for scripts use `print` instead, unescaped."""
    for line in lines:
        print(printable(line))


def confirm(question: str, hint: str) -> None:
    """Ask for confirmation on stderr; hint: how to confirm in advance. Raises: PavdmError if the answer is no."""
    try:
        typer.confirm(printable(question), abort=True, err=True)
    except typer.Abort:
        raise PavdmError(ABORTED, hint) from None


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], to_stderr: bool = False) -> None:
    """Print a table to stdout or stderr, wrapped to the terminal, or one line per row if there is none."""
    if to_stderr and _verbosity.get() == QUIET:
        return
    table, console = Table(header_style="bold", box=None, pad_edge=False), Console(highlight=False, stderr=to_stderr)
    names = max((len(printable(row[0])) for row in rows), default=0)
    for index, column in enumerate(header):
        is_name = index == 0 and names <= console.width // 2
        table.add_column(Text(printable(column)), no_wrap=is_name)
    table.show_header = any(header)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    if console.is_terminal:
        _print_title(console, title)
        console.print(table)
        return
    console.width = UNWRAPPED_WIDTH
    with console.capture() as capture:
        _print_title(console, title)
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip(), file=console.file)
    console.file.flush()  # so that in a log the table precedes later stderr lines


def _print_title(console: Console, title: str) -> None:
    """Print a table's title as a line of its own, after a blank line if it begins with a line break."""
    if title.startswith("\n"):
        console.print()
    if title:
        console.print(Text(printable(title.removeprefix("\n")), "table.title"))


@contextmanager
def progress(
    description: str, total: int, unit: str = "frames", done: int = 0, waiting: bool = False, warmup: int = 0
) -> Iterator[Advance]:
    """A bar with speed and time left on a terminal, else a line every few seconds.

    Call the yielded function with the units done since the last call. `done`: units completed by an earlier run,
    excluded from the speed; `waiting`: start the clock at the first call, which may pass 0 units; `warmup`: units
    before the first of the total, which take time and are not counted.
    """
    description = printable(description)
    console = Console(stderr=True, highlight=False)
    if _verbosity.get() == QUIET:
        yield no_progress
        return
    if not console.is_terminal:
        yield _line_progress(description, total, unit, done, waiting, warmup)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # not needed by --help

    name, count = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[counted]}/{task.fields[of]}")
    with Progress(name, BarColumn(), count, TextColumn(RATE), TimeRemainingColumn(), console=console) as bar:
        texts: dict[str, Any] = {"counted": done, "of": total, "rate": f"0.0 {unit}"}
        task = bar.add_task(description, total=total + warmup, completed=done, start=not waiting, **texts)
        num_done = done

        def advance(units: int, label: str = "") -> None:
            nonlocal num_done
            bar.start_task(task)
            num_done += units
            text, num_counted = f"{description} {printable(label)}".rstrip(), max(0, num_done - warmup)
            bar.update(task, advance=units, description=text, counted=num_counted)
            bar.update(task, rate=f"{bar.tasks[task].speed or 0:.1f} {unit}")

        yield advance


@contextmanager
def endless_progress(description: str, fps: float, done_before: int = 0) -> Iterator[Advance]:
    """Progress of an endless video: its duration so far and the speed; `done_before`: frames of an earlier run."""
    description, start_time, frames, last_print = printable(description), time.monotonic(), 0, time.monotonic()
    console = Console(stderr=True, highlight=False)
    quiet, live = _verbosity.get() == QUIET, console.is_terminal
    from rich.progress import Progress, TextColumn

    name, length = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[time]} of video")
    with Progress(name, length, TextColumn(RATE), console=console, disable=quiet or not live) as bar:
        task = bar.add_task(description, total=None, time="0:00:00", rate="0.0 frames")

        def advance(units: int, label: str = "") -> None:
            nonlocal frames, last_print
            frames += units
            video, now = timedelta(seconds=int((done_before + frames) / fps)), time.monotonic()
            bar.update(task, advance=units, time=str(video), description=f"{description} {printable(label)}".rstrip())
            bar.update(task, rate=f"{bar.tasks[task].speed or 0:.1f} frames")
            if not (quiet or live) and now - last_print >= SECONDS_BETWEEN_LINES:
                last_print = now
                rate = f"{frames / (now - start_time):.1f} frames/s"
                print(
                    f"{description}: {video} of video, {rate} {printable(label)}".rstrip(), file=sys.stderr, flush=True
                )

        yield advance


@contextmanager
def training_progress(steps: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Progress bar of training steps with the smoothed loss; call the yielded function with each step's metrics."""
    mean, advance = 0.0, None
    with ExitStack() as stack:

        def report(step: int, metrics: dict[str, float]) -> None:
            nonlocal mean, advance
            if advance is None:  # only the first report tells at which step a resumed run starts
                advance = stack.enter_context(progress("training", steps, "steps", done=step - 1))
            mean = metrics["loss"] if not mean else 0.98 * mean + 0.02 * metrics["loss"]
            advance(1, f"loss {mean:.4f}")

        yield report


def no_progress(units: int, label: str = "") -> None:
    """An `Advance` that prints nothing."""


def _say(line: Text) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


def _time_left(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else format_estimate(seconds)


def _line_progress(description: str, total: int, unit: str, before: int, waiting: bool, warmup: int) -> Advance:
    start_time = last = None if waiting else time.monotonic()
    num_done = before

    def advance(units: int, label: str = "") -> None:
        nonlocal num_done, last, start_time
        num_done += units
        if start_time is None or last is None:
            start_time = last = time.monotonic()
            return
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (num_done - before) / (now - start_time)
            work, num_counted = total + warmup - before, max(0, num_done - warmup)
            # The first frames come after the ramp-up, and would multiply the time; other units are steady.
            is_early = unit == "frames" and num_done - before < EARLY_SHARE * work
            time_left = "" if is_early or not rate else f", {_time_left((total + warmup - num_done) / rate)} left"
            text = f"{description}: {num_counted}/{total} {unit}, {rate:.1f} {unit}/s{time_left} {printable(label)}"
            print(text.rstrip(), file=sys.stderr, flush=True)

    return advance
