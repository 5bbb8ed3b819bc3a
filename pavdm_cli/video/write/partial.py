"""The file that a video grows in: watched for interference, and renamed without replacing another file."""

from __future__ import annotations

import filecmp
import os
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

import av

from pavdm_cli.errors import OutputError
from pavdm_cli.runtime.durable import sync_folder
from pavdm_cli.video.paths import truncate_stem
from pavdm_cli.video.write.output import open_locked


class PartialFile:
    """NAME.partial.EXT, locked against other runs until it is closed. Raises: OSError, OutputError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_current_locked(path)
        self._initial = os.stat(path)
        self._largest_size, self._truncated = 0, False

    def clear(self) -> None:
        """Drop what an earlier run has written."""
        if self.path.is_file():
            os.truncate(self.path, 0)

    def check(self, contents: str) -> None:
        """Detect that another program deleted, replaced or truncated the file, which loses `contents`.

        Raises: OutputError.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            message = f"{self.path} was deleted while it was written: {contents} are lost"
            raise OutputError(message, "nothing could be saved: run the command again") from None
        if not self._is_same_file(status):
            message = f"{self.path} was replaced by another file while it was written: {contents} are lost"
            raise OutputError(message, "the other file is unchanged: run the command again with another output name")
        if status.st_size < self._largest_size:
            self._truncated = True
            message = f"{self.path} was truncated by another program while it was written: {contents} are lost"
            raise OutputError(message, f"the rest is kept in {self.path} but may not play: run the command again")
        self._largest_size = status.st_size

    def is_playable(self) -> bool:
        """Whether this is still the same file and a frame of it can be decoded. Raises: OSError."""
        try:
            status = os.stat(self.path)
            if not status.st_size or self._truncated or not self._is_same_file(status):
                return False
            with av.open(str(self.path.absolute())) as file:  # or "a:b.mp4" would be an address
                return next(file.decode(video=0), None) is not None
        except (FileNotFoundError, IndexError, av.error.InvalidDataError, av.error.EOFError):
            return False

    def is_intact(self) -> bool:
        """Whether no other program has deleted, replaced or truncated the file. Raises: OSError."""
        try:
            return not self._truncated and self._is_same_file(os.stat(self.path))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Delete the file, unless another program has replaced or truncated it."""
        with suppress(OSError):
            if self._is_same_file(os.stat(self.path)) and not self._truncated:
                self.path.unlink()

    def publish(self, complete: Path, target: Path, force: bool) -> Path:
        """Rename the complete file to `target`, or to a numbered name if that exists by now; returns the name.

        force: replace an existing file. Raises: OSError.
        """
        if force:
            os.replace(complete, target)
            sync_folder(target.parent)
            return target
        if _same_contents(complete, target):  # an earlier run was killed after this
            complete.unlink()
            return target
        stem, suffix = target.stem, target.suffix
        endings = (f"{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
        names = (target.with_name(truncate_stem(stem, ending) + ending) for ending in endings)
        name = next(name for name in names if rename_no_replace(complete, name))
        sync_folder(target.parent)
        return name

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def _is_same_file(self, status: os.stat_result) -> bool:
        file_status = self._initial if self._file.closed else os.fstat(self._file.fileno())
        return os.path.samestat(status, file_status)


def _same_contents(first: Path, second: Path) -> bool:
    return second.is_file() and not second.is_symlink() and filecmp.cmp(first, second, shallow=False)


def open_current_locked(path: Path) -> BinaryIO:
    """Like `open_locked`, repeated until the locked file is the one at `path`: another run may rename it meanwhile."""
    while True:
        file = open_locked(path)
        with suppress(FileNotFoundError):
            if file.closed or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def rename_no_replace(source: Path, target: Path) -> bool:
    """Rename a file; False if the new name exists, even as a broken link.

    Uses a hard link, which never replaces; on file systems without them (FAT, some network shares) an empty file
    reserves the name first. Raises: OSError.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):
        return _rename_over_placeholder(source, target)
    with suppress(OSError):  # the video has its name: a second one is harmless
        source.unlink()
    return True


def _rename_over_placeholder(source: Path, target: Path) -> bool:
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        os.replace(source, target)
    except OSError:
        with suppress(OSError):
            if not os.stat(target).st_size:
                target.unlink()
        raise
    return True
