"""Opens a file that may be hostile: no network, no playlists, no picture too large to hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer

from pavdm_cli.errors import InputError
from pavdm_cli.video.whole import is_whole

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
HINT = "give a video file: mp4, mov, mkv, webm, avi or gif"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest input taken on: 8K pictures, ten hours at 30 frames per second, and slower ones up to 100 hours."""

    pixels: int = 8192 * 4320
    frames: int = 1_080_000
    seconds: int = 360_000


@contextmanager
def open_source(path: str | os.PathLike[str], limits: Limits | None = None) -> Iterator[InputContainer]:
    """An open container of one of the formats allowed, read from a local file alone. Raises: InputError."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "max_pixels": str((limits or Limits()).pixels),  # also holds while FFmpeg looks into the streams
    }
    file = check_input(path)
    if not is_whole(file):
        raise InputError(f"{path} is cut short: its end is missing", "copy or download it again")
    try:
        source = av.open(str(file), options=options, metadata_errors="replace")
    except (OSError, av.FFmpegError, ValueError):
        raise InputError(f"{path} is not a video that can be read", HINT) from None
    with source:
        yield source


def check_input(path: str | os.PathLike[str], hint: str = HINT) -> Path:
    """The absolute path of a file that is there, is a plain file and is not empty. Raises: InputError."""
    try:
        file = Path(os.path.expanduser(path)).absolute()
        missing, plain = not file.exists(), file.is_file()
        empty = plain and file.stat().st_size == 0
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened: {error}", hint) from None
    if missing and re.match(r"\w{2,}:", str(path)):
        raise InputError(f"{path} is an address, not a file", "download it first, then give the file")
    if missing:
        raise InputError(f"{path} does not exist", hint)
    if not plain:
        raise InputError(f"{path} is {'a folder' if file.is_dir() else 'not a plain file'}", hint)
    if empty:
        raise InputError(f"{path} is empty", hint)
    return file
