"""Where a video may be written: names that are free, folders that take a file."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import BinaryIO

from pavdm_cli.errors import OutputError, UsageError

SUFFIXES = (".mp4", ".mkv", ".webm", ".gif")
LONGEST_NAME = 255  # bytes, on all common file systems
NUMBER = "-0000"  # room for the number of a name that is taken


def check_output(path: str | os.PathLike[str], force: bool = False) -> Path:
    """The path, once it is known that a video can be written there.

    Raises: UsageError for an unknown suffix, OutputError for an existing file, or a part of one, without `force`, a
    folder, a place that cannot be written, or a file that another run is writing.
    """
    target = Path(os.path.expanduser(path))  # unlike Path's, it bears a user who is unknown
    if not _fits(target.name):
        length = f"{len(os.fsencode(target.name))} bytes"
        raise OutputError(f"the name of the video is too long, {length}", f"file systems take {LONGEST_NAME} at most")
    if target.suffix.lower() not in SUFFIXES:
        hint = f"end the name in {', '.join(SUFFIXES)}, or name a folder that is there"
        raise UsageError(f"cannot write {target.name!r} as a video", hint)
    try:
        _check_free(target, force)
        _try_to_write(target)
        _check_unfinished(partial_path(target), force)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "choose another place with -o") from None
    return target


def partial_path(path: Path) -> Path:
    """The name a video has while it grows: NAME.partial.EXT beside NAME.EXT; a NAME too long for that is shortened."""
    ending = f".partial{path.suffix}"
    if _fits(path.stem + ending):
        return path.with_name(path.stem + ending)
    ending = f"-{zlib.crc32(os.fsencode(path.name)):08x}{ending}"  # tells names apart that only end differently
    return path.with_name(truncate_stem(path.stem, ending) + ending)


def truncate_stem(stem: str, ending: str) -> str:
    """As much of a name as leaves room for `ending`: file systems count bytes, not letters."""
    while not _fits(stem + ending):
        stem = stem[:-1]
    return stem


def _fits(name: str) -> bool:
    return len(os.fsencode(name)) <= LONGEST_NAME


def claim(partial: Path) -> BinaryIO:
    """The file a video grows in, locked against other runs until it is closed: two would spoil it.

    Raises: OSError, OutputError where another run has it.
    """
    file = partial.open("ab")
    try:
        _lock(file)
    except BlockingIOError:
        file.close()
        hint = "wait until it is done, or choose another name with -o"
        raise OutputError(f"{partial} is being written by another run", hint) from None
    return file


def is_being_written(file: Path) -> bool:
    """Whether a run is writing a video in this file, as far as can be known."""
    try:
        claim(file).close()
    except OutputError:
        return True
    except OSError:  # one that may only be read
        return False
    return False


def resolve_output(wanted: Path | None, name: Callable[[Path], Path]) -> Path:
    """The path that is wanted; `name` gives one in it where it is a folder, or here where there is none."""
    if wanted is None:
        return name(Path())
    return name(wanted) if os.path.isdir(wanted) else wanted  # unlike Path's, it bears a name that is too long


def default_output_path(prompt: str, seed: int, folder: str | os.PathLike[str] = ".", suffix: str = ".mp4") -> Path:
    """A free name made of the prompt's first words and the seed, numbered where it is taken."""
    return unused_path(folder, f"{_slug(prompt)}-{seed}", suffix)


def unused_path(folder: str | os.PathLike[str], stem: str, suffix: str) -> Path:
    """STEM.EXT in a folder, numbered where a video or a part of one has that name, shortened where it is too long."""
    stem = truncate_stem(stem, f"{NUMBER}.partial{suffix}")
    names = (Path(folder) / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
    return next(name for name in names if not os.path.lexists(name) and not partial_path(name).exists())


def _slug(prompt: str, longest: int = 48) -> str:
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if len(words) > longest:
        words = words[:longest].rsplit("-", 1)[0]
    return words or "video"


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder", "name a file, for example -o video.mp4")
    if os.path.lexists(target) and not force:  # a link to nothing too
        raise OutputError(f"{target} exists", "use --force to replace it, or another name with -o")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist", f"make it first: mkdir -p {target.parent}")


def _try_to_write(target: Path) -> None:
    """Open the partial file for a moment: permissions alone do not tell (network shares, read-only mounts, root)."""
    partial = partial_path(target)
    existed = partial.exists()
    claim(partial).close()
    if not existed:
        partial.unlink()


def _check_unfinished(partial: Path, force: bool) -> None:
    """Hours may be in what an interrupt has kept."""
    if not force and partial.exists() and partial.stat().st_size:
        hint = "`pavdm extend` goes on from it, under another name; --force loses it"
        raise OutputError(f"{partial} exists: a run that was cut short kept it", hint)


def _lock(file: BinaryIO) -> None:
    """Raises: BlockingIOError where another process holds the lock."""
    if sys.platform == "win32":  # whose open files cannot be renamed
        file.close()
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return
