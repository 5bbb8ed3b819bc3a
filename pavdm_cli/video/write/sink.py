"""The file that a muxer writes to."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Sink:
    """A file that never fails towards the muxer: the first error is stored for `check`, later writes are dropped.

    FFmpeg's MP4 muxer crashes the process if it closes a file on a full disk. Dropping its last writes instead leaves
    the file as a kill would: playable up to the last complete GOP.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._position = self._size = 0
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of `data`, or drop it after an error."""
        remaining = memoryview(data)
        while remaining and self._error is None:
            try:
                self._check_size()
                remaining = remaining[self._file.write(remaining) :]
            except OSError as error:
                self._error = error
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, after an error only nominally."""
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        if self._error is None:
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """The nominal position."""
        return self._position

    def check(self) -> None:
        """Raise the stored error: OSError."""
        if self._error is not None:
            raise self._error

    def _check_size(self) -> None:
        """Detect truncation by another program, after which writing would leave a hole. Raises: OSError."""
        status = os.fstat(self._file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size < self._size:
            raise OSError(0, "another program truncated the file while it was written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
