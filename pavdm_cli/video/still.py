"""A still picture out of a file that may be hostile: PNG or JPEG, upright, as RGB."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np

from pavdm_cli.errors import InputError
from pavdm_cli.video.colour import Screen
from pavdm_cli.video.encode import Frame
from pavdm_cli.video.info import TOO_LARGE
from pavdm_cli.video.orient import Orientation
from pavdm_cli.video.source import Limits, check_input

HINT = "give a PNG or JPEG file; `pavdm extend` goes on from a video"
LARGEST = 2**29  # bytes of a file
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SIZES = {kind for kind in range(0xC0, 0xD0) if kind not in (0xC4, 0xC8, 0xCC)}  # a JPEG's segments that begin a picture
ORIENTATION = 0x0112  # a tag of EXIF: which of these eight a picture is turned by, from 1 on
TURNS = (
    Orientation(),
    Orientation(False, True, False),
    Orientation(False, True, True),
    Orientation(False, False, True),
    Orientation(True, False, False),
    Orientation(True, True, False),
    Orientation(True, True, True),
    Orientation(True, False, True),
)


@dataclass(frozen=True, slots=True)
class Still:
    """A picture that was read."""

    path: Path
    frame: Frame  # (H, W, 3), upright
    digest: str  # of the file's bytes
    notes: tuple[str, ...]  # what reading it changed, one line each


class Head(NamedTuple):
    """What a file says of its picture before any of it is decoded."""

    width: int
    height: int
    whole: bool
    exif: bytes


def open_still(path: str | os.PathLike[str], limits: Limits | None = None) -> Still:
    """Read a PNG or a JPEG; nothing is decoded before its size is known to be bearable. Raises: InputError."""
    limits, file = limits or Limits(), check_input(path, HINT)
    data = _bytes(file)
    head = _head(_png_parts(data) if data.startswith(PNG) else _jpeg_parts(data))
    if head.width * head.height > limits.pixels:
        raise InputError(f"{path} has {head.width}x{head.height} pixels, more than can be held", TOO_LARGE)
    if not head.whole:
        raise InputError(f"{path} is cut short: its end is missing", "copy or download it again")
    try:
        picture, notes = _decode(_without(data, head.exif), limits)
    except (av.FFmpegError, ValueError, StopIteration):
        raise InputError(f"{path} is damaged: its picture cannot be decoded", HINT) from None
    turn = TURNS[_turn(head.exif) - 1]
    notes += [turn.note()] if turn.note() else []
    return Still(file, turn.upright(picture), hashlib.sha256(data).hexdigest()[:16], tuple(notes))


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            start = source.read(8)
            if not start.startswith((PNG, JPEG)):
                raise InputError(f"{file} is not a picture that can be read", HINT)
            if file.stat().st_size > LARGEST:
                raise InputError(f"{file} is larger than a picture is", HINT)
            return start + source.read()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", HINT) from None


def _head(parts: Iterator[tuple[str, bytes]]) -> Head:
    """The first size and the first EXIF among the parts, and whether the last part is the end."""
    found = {"": b""}
    for name, body in parts:
        found.setdefault(name, body)
    size = found.get("size", b"")
    half = len(size) // 2
    return Head(int.from_bytes(size[:half]), int.from_bytes(size[half:]), "end" in found, found.get("exif", b""))


def _png_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = len(PNG)
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + min(length, 2**16)]
        names = {b"IHDR": ("size", body[:8]), b"eXIf": ("exif", body), b"IEND": ("end", b"")}
        yield names.get(kind, ("", b""))
        place += 12 + length


def _jpeg_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if kind == 0xFF:  # padding
            place += 1
            continue
        body = data[place + 4 : place + 2 + length]
        if kind in SIZES:
            yield "size", body[3:5] + body[1:3]
        if kind == 0xE1 and body.startswith(b"Exif\0\0"):
            yield "exif", body[6:]
        if kind == 0xDA:  # the picture itself, in which FF D9 is nothing but its end
            yield ("end", b"") if data.find(b"\xff\xd9", place) > 0 else ("", b"")
            return
        place += 2 + length


def _turn(exif: bytes) -> int:
    """The orientation that EXIF names, 1 to 8."""
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"

    def number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size], order)

    start = number(4, 4)
    for place in range(start + 2, start + 2 + 12 * min(number(start, 2), 200), 12):
        if number(place, 2) == ORIENTATION and 1 <= number(place + 8, 2) <= len(TURNS):
            return number(place + 8, 2)
    return 1


def _without(data: bytes, exif: bytes) -> bytes:
    """The same file with EXIF that no decoder looks for: broken EXIF is no reason to refuse a picture."""
    for name in (b"eXIf", b"Exif\0\0"):
        data = data.replace(name + exif, b"x" + name[1:] + exif, 1) if exif else data
    return data


def _decode(data: bytes, limits: Limits) -> tuple[Frame, list[str]]:
    """No container and no file is opened: the picture is handed to its decoder."""
    codec = av.CodecContext.create("png" if data.startswith(PNG) else "mjpeg", "r")
    codec.options = {"max_pixels": str(limits.pixels)}
    return _shown(next(picture for one in (av.Packet(data), None) for picture in codec.decode(one)))


def _shown(picture: av.VideoFrame) -> tuple[Frame, list[str]]:
    """RGB, on white where it is transparent."""
    if picture.format.name != "pal8" and not any(part.is_alpha for part in picture.format.components):
        return Screen(picture.width, picture.height).show(picture), []
    layers = picture.reformat(format="rgba").to_ndarray().astype(np.float32)
    cover = layers[..., 3:] / 255
    frame = (layers[..., :3] * cover + 255 * (1 - cover)).round().astype(np.uint8)
    return frame, ["what is transparent is shown white"] if cover.min() < 1 else []
