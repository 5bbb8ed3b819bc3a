"""Ctrl-C, a closed terminal, schedulers: noted by work that is written to a file, the end of anything else.

Only standard library, and little of it: this is the first module that a process imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pavdm_cli.runtime.interrupt import INTERRUPTED, SCHEDULER, Interrupted, exit_code_of, exit_interrupted

PATIENCE = 5.0  # seconds that closing a file may take before another signal ends the process immediately
Handler = Callable[[int, FrameType | None], object]


def install_signal_handlers() -> None:
    """From now on a signal ends this process without a traceback, however many follow it.

    The first one raises KeyboardInterrupt. While a module is being imported, where C code turns that into any other
    error, it ends the process immediately, like every later one. While the interpreter shuts down, after its last
    callback, signals are ignored: it would restore their default, which kills the process with another exit code.
    """
    numbers: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        code = exit_code_of(numbers[0])
        if len(numbers) > 1 or _importing(frame):
            exit_interrupted(code)
        raise Interrupted(code)

    atexit.register(_install, signal.SIG_IGN)  # before any other, so that it is called last
    _install(end)
    sys.unraisablehook = _unraisable


def exit_on_signal(code: int) -> None:
    """From now on a signal ends this process immediately and silently with `code`: its streams are flushed."""
    _install(lambda number, frame: os._exit(code))


class Stop:
    """Whether a signal came: the first is noted, the second raises KeyboardInterrupt in interruptible work.

    It is raised once; later signals are ignored while files are closed, unless that takes more than `PATIENCE`.
    has_launcher: a launcher repeats signals to all of its processes, so that none raises it.
    """

    def __init__(self, interruptible: bool, has_launcher: bool = False) -> None:
        self._count, self._interruptible, self._launched = 0, interruptible, has_launcher
        self.exit_code = INTERRUPTED  # that the first signal asks for
        self._closing: float | None = None  # when the work ended

    def __call__(self) -> bool:
        """Whether to stop after the current unit of work."""
        return self._count > 0

    def by_user(self) -> bool:
        """Whether the first signal was the user's, not a scheduler's."""
        return self._count > 0 and self.exit_code == INTERRUPTED

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work in which a second signal raises KeyboardInterrupt; afterwards none does."""
        self._interruptible, self._closing = True, None
        try:
            yield
        finally:
            self._interruptible, self._closing = False, time.monotonic()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Repeated warnings, as of a limit of CPU time once a second, count once."""
        if self._count and number in _warnings():
            return
        self._count += 1
        if self._count == 1:
            self.exit_code = exit_code_of(number)
        if self._launched:
            return
        if self._interruptible and self._count > 1 and not _importing(frame):
            self._interruptible, self._closing = False, time.monotonic()
            raise Interrupted(self.exit_code)
        if self._closing is not None and time.monotonic() - self._closing > PATIENCE:
            exit_interrupted(self.exit_code)


@contextmanager
def stop_requested(interruptible: bool = True, has_launcher: bool = False) -> Iterator[Stop]:
    """Inside the block, the first signal is only noted; the value says whether one came.

    interruptible: a second one raises KeyboardInterrupt anywhere in the block; otherwise only in `Stop.interruptible`.
    Under torchrun, Ctrl-C comes twice: from the terminal and from torchrun. has_launcher: signals never raise it, and
    are ignored after the block: a launcher sends them to all of its processes once one has ended.
    """
    stop = Stop(interruptible, has_launcher)
    previous = _install(stop.receive)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if has_launcher else handler)


def _install(handler: Handler | signal.Handlers) -> dict[int, Any]:
    """Set the handler of every signal that ends a program; the previous handlers by signal."""
    names = ("SIGINT", "SIGHUP", *SCHEDULER)
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks some
    hangup = getattr(signal, "SIGHUP", None)  # a closed terminal, which nohup ignores
    ignored_numbers = [hangup] if hangup and signal.getsignal(hangup) == signal.SIG_IGN else []
    return {number: signal.signal(number, handler) for number in numbers if number not in ignored_numbers}


def _warnings() -> list[int]:
    """Signals that a scheduler may send again and again before it ends a process."""
    return [getattr(signal, name) for name in ("SIGUSR1", "SIGXCPU") if hasattr(signal, name)]


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: Any) -> None:
    """An interrupt that Python could not raise, in a finalizer or a callback, still ends the process."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        exit_interrupted(getattr(unraisable.exc_value, "exit_code", INTERRUPTED))
    sys.__unraisablehook__(unraisable)
