"""The file in which a video grows: known again by its identity, and given its name without replacing another's."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

import av

from pavdm_cli.errors import OutputError
from pavdm_cli.video.write.output import claim, truncate_stem


class PartialFile:
    """NAME.partial.EXT, locked against other runs until it is closed. Raises: OSError, OutputError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_current_locked(path)
        self._first = os.stat(path)
        self._largest, self._cut = 0, False

    def check(self, what: str) -> None:
        """Notice that another program deleted, replaced or cut the file, which loses `what`. Raises: OutputError."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            message = f"{self.path} was deleted while it was written: {what} are lost"
            raise OutputError(message, "nothing of this run is left: run it again") from None
        if not self._is_ours(now):
            message = f"{self.path} was replaced by another file while it was written: {what} are lost"
            raise OutputError(message, "the other file stays as it is: run it again under another name")
        if now.st_size < self._largest:
            self._cut = True
            message = f"{self.path} was cut short by another program while it was written: {what} are lost"
            raise OutputError(message, f"what is left stays in {self.path} and may not play: run it again")
        self._largest = now.st_size

    def plays(self) -> bool:
        """Whether the file is ours and a frame of it can be shown. Raises: OSError where it cannot be read."""
        try:
            now = os.stat(self.path)
            if not now.st_size or self._cut or not self._is_ours(now):
                return False
            with av.open(str(self.path)) as file:
                return next(file.decode(video=0), None) is not None
        except (FileNotFoundError, IndexError, av.error.InvalidDataError, av.error.EOFError):
            return False

    def remove(self) -> None:
        """Delete the file, unless it is another's by now, or another program cut it."""
        with suppress(OSError):
            if self._is_ours(os.stat(self.path)) and not self._cut:
                self.path.unlink()

    def publish(self, target: Path, force: bool) -> Path:
        """Give the finished file its name; where that was taken meanwhile, a numbered one. Gives the name it has.

        force: replace what has the name. Raises: OSError.
        """
        if force:
            os.replace(self.path, target)
            return target
        stem, suffix = target.stem, target.suffix
        endings = (f"{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
        names = (target.with_name(truncate_stem(stem, ending) + ending) for ending in endings)
        return next(name for name in names if rename_no_replace(self.path, name))

    def close(self) -> None:
        """Let other runs have the file."""
        self._file.close()

    def _is_ours(self, now: os.stat_result) -> bool:
        own = self._first if self._file.closed else os.fstat(self._file.fileno())
        return os.path.samestat(now, own)


def open_current_locked(path: Path) -> BinaryIO:
    """As `claim`, of the file that has the path once it is locked: another run may have renamed the one opened."""
    while True:
        file = claim(path)
        with suppress(FileNotFoundError):
            if file.closed or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def rename_no_replace(source: Path, target: Path) -> bool:
    """Rename a file unless the new name is taken, by a link to nothing too: False.

    A hard link never replaces; where the file system has none (FAT, some network shares) the name is first taken by an
    empty file of our own. Raises: OSError.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):
        return _rename_over_placeholder(source, target)
    with suppress(OSError):  # the video has its name: a second one does no harm
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
