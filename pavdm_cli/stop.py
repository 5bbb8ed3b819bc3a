"""Ctrl-C, SIGTERM and a closed terminal as a question the work asks between chunks; a second may stop at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested(hasty: bool = True) -> Iterator[Callable[[], bool]]:
    """Inside the block the first signal is only noted; the returned call says whether one came.

    hasty: a second one stops at once. Under torchrun a Ctrl-C comes twice, from the terminal and from torchrun.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted and hasty:
            raise KeyboardInterrupt
        noted.append(number)

    hangup = getattr(signal, "SIGHUP", None)  # a closed terminal, which nohup ignores; Windows has none
    closed = [hangup] if hangup and signal.getsignal(hangup) != signal.SIG_IGN else []
    signals = (signal.SIGINT, signal.SIGTERM, *closed)
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
