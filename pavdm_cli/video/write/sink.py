"""The file under a muxer."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Sink:
    """A file that never fails towards the muxer: it keeps the first error and drops what comes after it.

    FFmpeg's MP4 muxer crashes the process when it closes a file on a full disk. Dropped instead, the end leaves the
    file as a kill would: playable up to the last group of pictures written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._position = self._size = 0
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of `data`, or drop what is left of it."""
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                self._check_size()
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as in a file, also where nothing was written any more."""
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        if self._error is None:
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def check(self) -> None:
        """Raise the error that a write met: OSError."""
        if self._error is not None:
            raise self._error

    def _check_size(self) -> None:
        """Notice that the file was cut: what is written after that leaves a hole. Raises: OSError."""
        found = os.fstat(self._file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size < self._size:
            raise OSError(0, "another program cut the file short while it was written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
