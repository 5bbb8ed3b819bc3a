"""Open untrusted media files: local files only, no playlists, no oversized frames."""

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
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.video.io.truncation import is_truncated
from pavdm_cli.video.paths import checkpoint_path, partial_path

# FFmpeg demuxers of self-contained files, which reference no other file or address.
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,ogg,asf,mxf"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".ts", ".3gp")  # of videos in a folder
HINT = "give a video file: mp4, mov, mkv, webm, avi, gif, ts, mpg, flv, ogv or wmv"
USE_REFERENCED_FILE = "give one of the video files that it names"
REMUX = "remux it first: ffmpeg -i {} -c copy x.mkv"
UNSUPPORTED_FORMATS = (  # first bytes, format, hint
    (b"#EXTM3U", "a playlist", USE_REFERENCED_FILE),
    (b"ffconcat", "a playlist", USE_REFERENCED_FILE),
    (b"[playlist]", "a playlist", USE_REFERENCED_FILE),
    (b"<?xml", "an XML file", USE_REFERENCED_FILE),
    (b".RMF", "a RealMedia file", REMUX),
    (b"nut/multimedia container", "a NUT file", REMUX),
    (b"DKIF", "an IVF file", REMUX),
    (b"YUV4MPEG2", "a YUV4MPEG2 file", REMUX),
    (b"\0\0\0\1\x67", "a raw H.264 stream", REMUX),
    (b"\0\0\0\1\x40", "a raw HEVC stream", REMUX),
    (b"\0\0\1\xb3", "a raw MPEG video stream", REMUX),
    (b"\0\0\1\xb0", "a raw MPEG-4 video stream", REMUX),
    (b"\x1f\x07\0", "a DV file", REMUX),
    (b"\xb7\xd8\0\x20", "a Windows TV recording", REMUX),
    (b"\x89PNG", "an image", HINT),
    (b"\xff\xd8\xff", "an image", HINT),
    (b"ID3", "an audio file", HINT),
    (b"fLaC", "an audio file", HINT),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest input that is accepted: 8K frames, ten hours at 30 fps, 100 hours at lower rates."""

    pixels: int = 8192 * 4320
    frames: int = 1_080_000
    seconds: int = 360_000


@contextmanager
def open_input(path: str | os.PathLike[str], limits: Limits | None = None) -> Iterator[InputContainer]:
    """Open a local file with one of DEMUXERS. Raises: InputError."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": DEMUXERS,
        "max_pixels": str((limits or Limits()).pixels),  # also applies while FFmpeg probes the streams
    }
    file = check_input(path)
    try:
        truncated = is_truncated(file)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", HINT) from None
    if truncated:
        raise InputError(f"{path} is truncated: its end is missing", "copy or download it again")
    try:
        container = av.open(str(file), options=options, metadata_errors="replace")
    except (OSError, av.FFmpegError, ValueError):
        raise _unreadable(path, file) from None
    with container:
        yield container


def _unreadable(path: str | os.PathLike[str], file: Path) -> InputError:
    """The error for a file that FFmpeg cannot open, naming its format if the first bytes tell it."""
    with file.open("rb") as stream:
        head = stream.read(512)
    for magic, name, hint in UNSUPPORTED_FORMATS:
        if head.startswith(magic):
            return InputError(
                f"{path} is not a video that can be read: it is {name}", hint.format(shlex.quote(file.name))
            )
    return InputError(f"{path} is not a video that can be read", HINT)


def _partial_hint(file: Path) -> str:
    """How to complete a video of which only the partial file exists; empty if there is none."""
    partial = partial_path(file)
    if checkpoint_path(partial).exists():
        return f"it was interrupted: `{command_line(('pavdm', 'resume'), str(file))}` completes it"
    return f"an interrupted run left {partial}" if partial.exists() else ""


def check_input(path: str | os.PathLike[str], hint: str = HINT) -> Path:
    """The absolute path of an existing, regular, non-empty file. Raises: InputError."""
    try:
        file = Path(os.path.expanduser(path)).absolute()
        exists, regular = file.exists(), file.is_file()
        empty = regular and file.stat().st_size == 0
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened: {error}", hint) from None
    if not exists and re.match(r"\w{2,}:", str(path)):
        raise InputError(f"{path} is an address, not a file", "download it first, then give the file")
    if not exists:
        raise InputError(f"{path} does not exist", _partial_hint(Path(os.path.expanduser(path))) or hint)
    if not regular:
        raise InputError(f"{path} is {'a folder' if file.is_dir() else 'not a regular file'}", hint)
    if empty:
        raise InputError(f"{path} is empty", hint)
    return file
