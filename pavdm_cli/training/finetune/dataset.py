"""Find captioned videos in a folder, and report why others are skipped."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.errors import InputError
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.runtime.untrusted import InvalidError, is_regular, read_text
from pavdm_cli.video import VIDEO_SUFFIXES

PATHS, TEXTS = ("path", "video"), ("text", "caption")  # columns of the CSV file, by either name
HINT = "a caption is NAME.txt next to NAME.mp4, or a row of captions.csv with columns path,text (or video,caption)"
MAX_LISTED = 10  # skipped files
MAX_CAPTION_BYTES, MAX_TABLE_BYTES = 1 << 20, 256 << 20


@dataclass(frozen=True, slots=True)
class VideoItem:
    """A video and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not used for training."""

    path: Path
    reason: str


def find_captioned_videos(folder: Path, is_usable: Callable[[str], bool]) -> tuple[list[VideoItem], list[Skipped]]:
    """The captioned videos in a folder and its subfolders, sorted, and those skipped. Raises: InputError.

    is_usable: whether the model can use a caption.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", HINT)
    folder = folder.resolve()
    table_captions = _csv_captions(folder)
    paths = sorted(set(_videos(folder)) | table_captions.keys())
    captions = [(path, table_captions.get(path) or _sidecar_caption(path)) for path in paths]
    usable = [VideoItem(path, text) for path, text in captions if text and is_usable(text) and is_regular(path)]
    usable_paths = {item.path for item in usable}
    return usable, [Skipped(path, _reason(path, text)) for path, text in captions if path not in usable_paths]


def summarize(skipped: Sequence[Skipped], trained: int) -> list[str]:
    """One line with the numbers of used and skipped videos, and a line for each of the first skipped ones."""
    counts = Counter(item.reason.partition(":")[0] for item in skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    rest = len(skipped) - MAX_LISTED
    return [
        f"{pluralize(trained, 'video')} to train on, {len(skipped)} skipped{f': {reasons}' if reasons else ''}",
        *(f"skipped: {item.path} ({item.reason})" for item in skipped[:MAX_LISTED]),
        *([f"and {rest} more"] if rest > 0 else []),
    ]


def _videos(folder: Path) -> Iterator[Path]:
    for inside, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield Path(inside, name)


def _sidecar_caption(path: Path) -> str:
    """The text file of the same name, or empty."""
    try:
        return read_text(path.with_suffix(".txt"), MAX_CAPTION_BYTES).strip()
    except (OSError, InvalidError):
        return ""


def _reason(path: Path, text: str) -> str:
    if not is_regular(path):
        return "missing"
    return "whose caption has no usable text" if text else "without a caption"


def _csv_captions(folder: Path) -> dict[Path, str]:
    """Captions by video, from the folder's captions.csv or its only table. Raises: InputError."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    preferred = [path for path in tables if path.name.lower() == "captions.csv"]
    if len(tables) > 1 and not preferred:
        names = ", ".join(path.name for path in tables)
        raise InputError(f"{folder} has {len(tables)} tables: {names}", "name the one to use captions.csv")
    return _read_csv((preferred or tables)[0]) if tables else {}


def _read_csv(csv_file: Path) -> dict[Path, str]:
    try:
        rows = csv.DictReader(io.StringIO(read_text(csv_file, MAX_TABLE_BYTES), newline=""), restval="")
        path, text = (_column(rows.fieldnames or (), names, csv_file) for names in (PATHS, TEXTS))
        return {_resolve(csv_file, row[path]): row[text].strip() for row in rows if row[path].strip("\0 \t")}
    except (OSError, InvalidError, csv.Error) as error:
        raise InputError(f"{csv_file} cannot be read as a table: {error}", "write it as CSV in UTF-8") from error


def _resolve(csv_file: Path, name: str) -> Path:
    return Path(os.path.normpath(csv_file.parent / name.strip()))


def _column(columns: Sequence[str], names: tuple[str, ...], csv_file: Path) -> str:
    for column in columns:
        if column.strip().lower() in names:
            return column
    raise InputError(f"{csv_file} has no column {' or '.join(names)}, only: {', '.join(columns) or 'nothing'}", HINT)
