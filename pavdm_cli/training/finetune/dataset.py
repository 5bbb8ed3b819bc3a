"""A folder of videos with captions: which there are, and why some cannot be used."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.errors import InputError
from pavdm_cli.models.opensora.prompt import clean
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.runtime.untrusted import InvalidError, is_regular, read_text

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".3gp")
PATHS, TEXTS = ("path", "video"), ("text", "caption")  # columns of the table, by either name
HINT = "a video's caption is NAME.txt beside it, or a row of captions.csv with columns path,text (or video,caption)"
NAMED = 10  # of those left out
LONGEST_CAPTION, LONGEST_TABLE = 1 << 20, 256 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class Captioned:
    """A video, and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not trained on."""

    path: Path
    reason: str


def captioned(folder: Path) -> tuple[list[Captioned], list[LeftOut]]:
    """The videos below a folder that have a caption, by name, and those that have none. Raises: InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of videos", HINT)
    folder = folder.resolve()
    table = _table(folder)
    paths = sorted(set(_videos(folder)) | table.keys())
    found = [(path, table.get(path) or _beside(path)) for path in paths]
    usable = [Captioned(path, text) for path, text in found if clean(text) and is_regular(path)]
    taken = {one.path for one in usable}
    return usable, [LeftOut(path, _reason(path, text)) for path, text in found if path not in taken]


def summary(left_out: Sequence[LeftOut], trained: int) -> list[str]:
    """How many videos are trained on and how many not, in a line; the first of the latter, a line each."""
    counts = Counter(one.reason.partition(":")[0] for one in left_out)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    rest = len(left_out) - NAMED
    return [
        f"{pluralize(trained, 'video')} to train on, {len(left_out)} left out{f': {reasons}' if reasons else ''}",
        *(f"left out: {one.path} ({one.reason})" for one in left_out[:NAMED]),
        *([f"and {rest} more"] if rest > 0 else []),
    ]


def _videos(folder: Path) -> Iterator[Path]:
    for inside, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(inside, name)


def _beside(path: Path) -> str:
    """The caption in the text file of the same name, if there is one."""
    try:
        return read_text(path.with_suffix(".txt"), LONGEST_CAPTION).strip()
    except (OSError, InvalidError):
        return ""


def _reason(path: Path, text: str) -> str:
    if not is_regular(path):
        return "not there"
    return "with a caption of which nothing can be read" if text else "without a caption"


def _table(folder: Path) -> dict[Path, str]:
    """Captions by video, from the folder's captions.csv or its only table. Raises: InputError."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    named = [path for path in tables if path.name.lower() == "captions.csv"]
    if len(tables) > 1 and not named:
        names = ", ".join(path.name for path in tables)
        raise InputError(f"{folder} has {len(tables)} tables: {names}", "name the one that counts captions.csv")
    return _read(named[0] if named else tables[0]) if tables else {}


def _read(table: Path) -> dict[Path, str]:
    try:
        rows = csv.DictReader(io.StringIO(read_text(table, LONGEST_TABLE), newline=""), restval="")
        path, text = (_column(rows.fieldnames or (), names, table) for names in (PATHS, TEXTS))
        return {_place(table, row[path]): row[text].strip() for row in rows if row[path].strip("\0 \t")}
    except (OSError, InvalidError, csv.Error) as error:
        raise InputError(f"{table} is not a table that can be read: {error}", "write it as CSV in UTF-8") from error


def _place(table: Path, name: str) -> Path:
    return Path(os.path.normpath(table.parent / name.strip()))


def _column(columns: Sequence[str], names: tuple[str, ...], table: Path) -> str:
    for column in columns:
        if column.strip().lower() in names:
            return column
    raise InputError(f"{table} has no column {' or '.join(names)}, only: {', '.join(columns) or 'nothing'}", HINT)
