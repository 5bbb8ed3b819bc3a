"""Where a video may be written: names that are free, folders that take a file."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from pavdm_cli.errors import OutputError, UsageError

SUFFIXES = (".mp4", ".mkv", ".webm", ".gif")


def check_output(path: str | os.PathLike[str], force: bool = False) -> Path:
    """The path, once it is known that a video can be written there.

    Raises: UsageError for an unknown suffix, OutputError for an existing file without `force`, a folder, or a place
    that cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot write {target.name!r} as a video", f"end the name in {', '.join(SUFFIXES)}")
    try:
        _check_free(target, force)
        _try_to_write(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "choose another place with -o") from None
    return target


def partial_path(path: Path) -> Path:
    """The name a video has while it grows: NAME.partial.EXT beside NAME.EXT."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def default_name(prompt: str, seed: int, folder: str | os.PathLike[str] = ".", suffix: str = ".mp4") -> Path:
    """A free name made of the prompt's first words and the seed, numbered where it is taken."""
    stem = f"{_slug(prompt)}-{seed}"
    taken = True
    number = 0
    while taken:
        number += 1
        target = Path(folder) / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
        taken = target.exists() or partial_path(target).exists()
    return target


def _slug(prompt: str, longest: int = 48) -> str:
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    if len(words) > longest:
        words = words[:longest].rsplit("-", 1)[0]
    return words or "video"


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder", "name a file, for example -o video.mp4")
    if target.exists() and not force:
        raise OutputError(f"{target} exists", "use --force to replace it, or another name with -o")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist", f"make it first: mkdir -p {target.parent}")


def _try_to_write(target: Path) -> None:
    """Open the partial file for a moment: permissions alone do not tell (network shares, read-only mounts, root)."""
    partial = partial_path(target)
    existed = partial.exists()
    with partial.open("ab"):
        pass
    if not existed:
        partial.unlink()
