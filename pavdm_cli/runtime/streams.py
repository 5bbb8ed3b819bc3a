"""Standard streams that cannot stop the program: output to a closed, full or broken stream is dropped."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

PIPE_BUF = 4096  # bytes that a writable pipe accepts without blocking
MAX_WAIT = 1.0  # seconds for a reader that does not read


class TolerantWriter(io.RawIOBase):
    """A raw stream whose writes never fail: it stores the first error and drops everything after it.

    blocking: wait for the reader as long as it takes; otherwise drop what it has not read within MAX_WAIT.
    """

    def __init__(self, raw: Any, blocking: bool, error: OSError | None = None) -> None:
        self._raw, self._blocking, self.error = raw, blocking, error
        self._wait = MAX_WAIT

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
        """Write what the stream accepts now, or drop it."""
        if self.error is None and self._ready():
            try:
                return self._raw.write(data if self._blocking else data[:PIPE_BUF]) or 0
            except OSError as error:
                self.error = error
        return len(data)

    def _ready(self) -> bool:
        """Whether a write would not block; after the first that would, none waits again."""
        if os.name != "posix":
            return True
        timeout = None if self._blocking else self._wait
        try:
            ready = bool(select.select([], [self], [], timeout)[1])
        except (OSError, ValueError):  # descriptors from 1024 on, or none
            return True
        self._wait = MAX_WAIT if ready else 0.0
        return ready


def protect_streams() -> None:
    """Make stdout and stderr tolerant, and keep the descriptors of closed streams from being reused."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _tolerant(sys.stdout, blocking=True)
    sys.stderr = _tolerant(sys.stderr, blocking=False)


def first_error(stream: TextIO) -> OSError | None:
    """Flush a stream and return its first error, if any."""
    stream.flush()
    return getattr(getattr(getattr(stream, "buffer", None), "raw", None), "error", None)


def exit_code(code: int) -> int:
    """`code`, or 4 if that is 0 and stdout failed.

    A reader that closed the pipe, as `head` does, is not an error worth a message.
    """
    error = first_error(sys.stdout)
    if error is None or code:
        return code
    if error.errno != errno.EPIPE:
        print(f"error: cannot write to standard output: {error.strerror}", file=sys.stderr)
    return 4


def _tolerant(stream: Any, blocking: bool) -> Any:
    """The stream on a tolerant raw stream, with the same encoding; one that was closed from the start drops all."""
    if stream is None:
        error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        buffer = io.BufferedWriter(TolerantWriter(io.FileIO(os.devnull, "w"), blocking, error))
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    buffer = io.BufferedWriter(TolerantWriter(raw, blocking))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering)
