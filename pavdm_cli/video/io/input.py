"""Opens a file that may be hostile: no network, no playlists, no picture too large to hold."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer

from pavdm_cli.errors import InputError
from pavdm_cli.video.io.truncation import is_whole

# FFmpeg's names of the formats that are read: each is one file that names no others, neither on disk nor elsewhere.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,ogg,asf,mxf"
HINT = "give a video file: mp4, mov, mkv, webm, avi, gif, ts, mpg, flv, ogv or wmv"
FILES = "give one of the video files that it names"
REMUX = "remux it first: ffmpeg -i {} -c copy x.mkv"
UNSUPPORTED_FORMATS = (  # first bytes, what they say that a file is, and what to do
    (b"#EXTM3U", "a playlist", FILES),
    (b"ffconcat", "a playlist", FILES),
    (b"[playlist]", "a playlist", FILES),
    (b"<?xml", "an XML file", FILES),
    (b".RMF", "a RealMedia file", REMUX),
    (b"nut/multimedia container", "a NUT file", REMUX),
    (b"DKIF", "an IVF file", REMUX),
    (b"YUV4MPEG2", "a YUV4MPEG2 file", REMUX),
    (b"\0\0\0\1\x67", "a bare H.264 stream", REMUX),
    (b"\0\0\0\1\x40", "a bare HEVC stream", REMUX),
    (b"\0\0\1\xb3", "a bare MPEG video stream", REMUX),
    (b"\0\0\1\xb0", "a bare MPEG-4 video stream", REMUX),
    (b"\x1f\x07\0", "a DV file", REMUX),
    (b"\xb7\xd8\0\x20", "a Windows TV recording", REMUX),
    (b"\x89PNG", "an image", HINT),
    (b"\xff\xd8\xff", "an image", HINT),
    (b"ID3", "a sound file", HINT),
    (b"fLaC", "a sound file", HINT),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest input taken on: 8K pictures, ten hours at 30 frames per second, and slower ones up to 100 hours."""

    pixels: int = 8192 * 4320
    frames: int = 1_080_000
    seconds: int = 360_000


@contextmanager
def open_input(path: str | os.PathLike[str], limits: Limits | None = None) -> Iterator[InputContainer]:
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
        raise _unreadable(path, file) from None
    with source:
        yield source


def _unreadable(path: str | os.PathLike[str], file: Path) -> InputError:
    """Why a file cannot be read, with its kind where the first bytes tell it."""
    with file.open("rb") as opened:
        head = opened.read(512)
    for mark, kind, hint in UNSUPPORTED_FORMATS:
        if head.startswith(mark):
            return InputError(
                f"{path} is not a video that can be read: it is {kind}", hint.format(shlex.quote(file.name))
            )
    return InputError(f"{path} is not a video that can be read", HINT)


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
