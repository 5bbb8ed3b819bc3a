"""Whether a file ends where its own headers say it does; a file cut short by a copy or a download does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"
BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"pnot", b"uuid"}


def is_whole(path: Path) -> bool:
    """False where a part announced is missing; a recording that was killed while it grew announces no length."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        head = _read(file, 0, 12)
        if head[:4] == b"RIFF":
            return all(end <= size for end in _riff_ends(file, size))
        if head[:4] == EBML:
            return all(end <= size for end in _ebml_ends(file, size))
        if head[:3] == b"GIF":
            return _read(file, max(0, size - 64), 64).rstrip(b"\0").endswith(b";")
        return head[4:8] not in BOXES or _boxes_whole(file, size)


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _riff_ends(file: BinaryIO, size: int) -> Iterator[int]:  # AVI: RIFF, length, ...; several in a row
    start = 0
    while _read(file, start, 4) == b"RIFF":
        length = int.from_bytes(_read(file, start + 4, 4), "little")
        yield start + length  # some writers count the eight bytes before it in
        start += 8 + length + length % 2


def _ebml_ends(file: BinaryIO, size: int) -> Iterator[int]:  # Matroska, WebM: the header, padding, then one segment
    start, name = 0, EBML
    while start < size and name != SEGMENT:
        name = _read(file, start, 9 - _read(file, start, 1)[0].bit_length())
        start += len(name)
        first = (_read(file, start, 1) or b"\0")[0]
        length = 9 - first.bit_length()
        value = int.from_bytes(_read(file, start, length)) & (1 << 7 * length) - 1
        if not first or value == (1 << 7 * length) - 1:  # all ones: a length unknown when it was written
            return
        start += length + value
        yield start


def _boxes_whole(file: BinaryIO, size: int) -> bool:  # MP4, QuickTime: length, name, ...; zero is up to the end
    start, fragmented = 0, False
    while start + 8 <= size:
        head = _read(file, start, 16)
        length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if length < 8 or head[4:8] not in BOXES:  # cameras append notes of their own
            return True
        fragmented |= head[4:8] == b"moof"
        start += length
    return fragmented or start <= size
