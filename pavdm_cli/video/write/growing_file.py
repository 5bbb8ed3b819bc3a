"""A file that segments are appended to, with a digest of all its bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from pavdm_cli.runtime.printable import pluralize

BLOCK = 1 << 20


class GrowingFile:
    """Starts empty, or after the first `size` bytes of an existing file, whose rest is dropped. Raises: OSError."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self._hash = hash_prefix(path, size)
        self._file = path.open("r+b" if size else "wb", buffering=0)
        self.size = size
        if size:
            self._file.truncate(size)
            self._file.seek(size)

    @property
    def digest(self) -> str:
        """SHA-256 of all bytes."""
        return self._hash.copy().hexdigest()

    def append(self, data: bytes) -> None:
        """Append data and wait until it is on the disk."""
        self._check_size()
        try:
            self._write(data)
        except OSError:
            with suppress(OSError):  # half a segment would not play
                self._file.truncate(self.size)
                self._file.seek(self.size)
            raise
        self._hash.update(data)
        self.size += len(data)

    def _write(self, data: bytes) -> None:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[self._file.write(remaining) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_size(self) -> None:
        """Detect truncation by another program, after which writing would leave a hole."""
        status = os.fstat(self._file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size < self.size:
            raise OSError(0, "another program truncated the file while it was written")


def hash_prefix(path: Path, size: int) -> hashlib._Hash:
    """SHA-256 of the first `size` bytes of a file. Raises: OSError, also if it has fewer."""
    digest, remaining = hashlib.sha256(), size
    if size:
        with path.open("rb") as file:
            while remaining and (data := file.read(min(remaining, BLOCK))):
                digest.update(data)
                remaining -= len(data)
    if remaining:
        raise OSError(0, f"{path} lacks its last {pluralize(remaining, 'byte')}")
    return digest
