"""Standard streams that a program outlives: a closed, full or broken one loses what is written, and stops nothing."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

PIPE_BUF = 4096  # bytes that a pipe which is ready takes at once
WAIT = 1.0  # seconds for a reader that does not read


class Tolerant(io.RawIOBase):
    """A raw stream whose writes never fail: it keeps the first error and drops what comes after it.

    patient: wait for as long as its reader does not read, else drop what the reader does not take within `WAIT`.
    """

    def __init__(self, raw: Any, patient: bool, error: OSError | None = None) -> None:
        self._raw, self._patient, self.error = raw, patient, error
        self._wait = WAIT

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The stream's own descriptor."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int:
        """Write what the stream takes now, or drop it."""
        if self.error is None and self._ready():
            try:
                return self._raw.write(data if self._patient else data[:PIPE_BUF]) or 0
            except OSError as error:
                self.error = error
        return len(data)

    def _ready(self) -> bool:
        """Whether a write would not block; after one that would have, no later one waits again."""
        if os.name != "posix":
            return True
        timeout = None if self._patient else self._wait
        try:
            ready = bool(select.select([], [self], [], timeout)[1])
        except (OSError, ValueError):  # descriptors from 1024 on, or none
            return True
        self._wait = WAIT if ready else 0.0
        return ready


def guard() -> None:
    """Make stdout and stderr tolerant, and let no file that is opened later take the place of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _tolerant(sys.stdout, patient=True)
    sys.stderr = _tolerant(sys.stderr, patient=False)


def failure(stream: TextIO) -> OSError | None:
    """Flush a stream; the first error that it has met, if any."""
    stream.flush()
    return getattr(getattr(getattr(stream, "buffer", None), "raw", None), "error", None)


def exit_code(code: int) -> int:
    """The exit code of a process that would have ended with `code`: 4 where stdout did not take all it was given.

    A reader that has gone, as `head` does, is told nothing.
    """
    error = failure(sys.stdout)
    if error is None or code:
        return code
    if error.errno != errno.EPIPE:
        print(f"error: cannot write to standard output: {error.strerror}", file=sys.stderr)
    return 4


def _tolerant(stream: Any, patient: bool) -> Any:
    """The stream with the same encoding on a tolerant raw stream; one that was closed from the start drops all."""
    if stream is None:
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        buffer = io.BufferedWriter(Tolerant(io.FileIO(os.devnull, "w"), patient, closed))
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    buffer = io.BufferedWriter(Tolerant(raw, patient))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering)
