"""Output paths: free names, folders that can be written, and locks against other runs."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import BinaryIO

from pavdm_cli.errors import InputError, OutputError, UsageError
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.video.io.info import open_video
from pavdm_cli.video.metadata import read_metadata
from pavdm_cli.video.paths import MAX_NAME_BYTES, checkpoint_path, fits, partial_path, truncate_stem

SUFFIXES = (".mp4", ".mkv", ".webm", ".gif")
NUMBER_SUFFIX = "-0000"  # room for the number that distinguishes names


def check_output(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Return the path if a video can be written there.

    Raises: UsageError for an unknown suffix; OutputError for a folder, a place that cannot be written, a file that
    another run is writing and, without `force`, an existing file or partial file.
    """
    target = Path(os.path.expanduser(path))  # unlike Path.expanduser, accepts unknown users
    if not fits(target.name):
        length = f"{len(os.fsencode(target.name))} bytes"
        raise OutputError(f"the video's name is too long, {length}", f"file systems allow {MAX_NAME_BYTES} at most")
    if target.suffix.lower() not in SUFFIXES:
        hint = f"end the name in {', '.join(SUFFIXES)}, or name an existing folder"
        raise UsageError(f"cannot write {target.name!r} as a video", hint)
    try:
        _check_free(target, force)
        _check_writable(target)
        _check_unfinished(target, partial_path(target), force)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "choose another place with -o") from None
    return target


def open_locked(partial: Path) -> BinaryIO:
    """Open a partial file, locked against other runs until it is closed.

    Raises: OSError, OutputError if another run has locked it.
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
    """Whether another run has locked this file; False if that cannot be tested."""
    try:
        open_locked(file).close()
    except OutputError:
        return True
    except OSError:  # read-only
        return False
    return False


def resolve_output(path: Path | None, default: Callable[[Path], Path]) -> Path:
    """`path`, or `default(folder)` if it is a folder or missing."""
    if path is None:
        return default(Path())
    return default(path) if os.path.isdir(path) else path  # unlike Path.is_dir, accepts names that are too long


def default_output_path(prompt: str, seed: int, folder: str | os.PathLike[str] = ".", suffix: str = ".mp4") -> Path:
    """An unused name of the prompt's first words and the seed."""
    return unused_path(folder, f"{slug(prompt)}-{seed}", suffix)


def unused_path(folder: str | os.PathLike[str], stem: str, suffix: str) -> Path:
    """STEM.EXT in a folder, numbered if a video or partial video of that name exists, shortened if it is too long."""
    stem = truncate_stem(stem, f"{NUMBER_SUFFIX}.partial{suffix}")
    names = (Path(folder) / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
    return next(name for name in names if not os.path.lexists(name) and not partial_path(name).exists())


def slug(prompt: str, max_length: int = 48) -> str:
    """A prompt's first words as a part of a file name."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if len(words) > max_length:
        words = words[:max_length].rsplit("-", 1)[0]
    return words or "video"


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder", "name a file, for example -o video.mp4")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is not a regular file", "name a file, or write to standard output with -o -")
    if os.path.lexists(target) and not force:  # including broken links
        raise OutputError(f"{target} already exists", "use --force to replace it, or another name with -o")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist", f"make it first: mkdir -p {target.parent}")


def _check_writable(target: Path) -> None:
    """Open the partial file: permissions alone do not tell (network shares, read-only mounts, root)."""
    partial = partial_path(target)
    already_exists = partial.exists()
    open_locked(partial).close()
    if not already_exists:
        partial.unlink()


def _check_unfinished(target: Path, partial: Path, force: bool) -> None:
    """Protect the partial file of an interrupted run, which may hold hours of work."""
    if not force and partial.exists() and (partial.stat().st_size or checkpoint_path(partial).exists()):
        resume = f"`{command_line(('pavdm', 'resume'), str(target))}` continues it"
        advice = resume if checkpoint_path(partial).exists() else advice_without_checkpoint(partial)
        raise OutputError(f"{partial} exists: an interrupted run left it", f"{advice}; --force discards it")


def advice_without_checkpoint(partial: Path) -> str:
    """What to do with a partial file that has no checkpoint: there was none yet, or it was deleted."""
    try:
        num_copied = (read_metadata(partial) or {}).get("copied")
        num_new = open_video(partial).frames - (num_copied if isinstance(num_copied, int) else 0)
    except InputError:  # no frames yet
        num_new = 0
    if num_new <= 0:
        return "it holds no generated frames, so run the same command again"
    return f"`{command_line(('pavdm', 'extend'), str(partial))}` continues it from its last frames"


def _lock(file: BinaryIO) -> None:
    """Raises: BlockingIOError if another process holds the lock."""
    if sys.platform == "win32":  # where open files cannot be renamed
        file.close()
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return
