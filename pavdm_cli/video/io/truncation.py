"""Detect files that end before their own headers say, such as interrupted copies or downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"
BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"pnot", b"uuid"}


def is_truncated(path: Path) -> bool:
    """Whether an announced part is missing; a recording that was killed while it grew announces no length."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        head = _read(file, 0, 12)
        if head[:4] == b"RIFF":
            return any(end > size for end in _riff_ends(file, size))
        if head[:4] == EBML:
            return any(end > size for end in _ebml_ends(file, size))
        if head[:3] == b"GIF":
            return not _read(file, max(0, size - 64), 64).rstrip(b"\0").endswith(b";")
        return head[4:8] in BOXES and _is_mp4_truncated(file, size)


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _riff_ends(file: BinaryIO, size: int) -> Iterator[int]:  # AVI: a sequence of RIFF chunks
    start = 0
    while _read(file, start, 4) == b"RIFF":
        length = int.from_bytes(_read(file, start + 4, 4), "little")
        yield start + length  # some writers include the 8-byte chunk header in the length
        start += 8 + length + length % 2


def _ebml_ends(file: BinaryIO, size: int) -> Iterator[int]:  # Matroska, WebM: header, padding, one segment
    start, element = 0, EBML
    while start < size and element != SEGMENT:
        element = _read(file, start, 9 - _read(file, start, 1)[0].bit_length())
        start += len(element)
        first = (_read(file, start, 1) or b"\0")[0]
        length = 9 - first.bit_length()
        value = int.from_bytes(_read(file, start, length)) & (1 << 7 * length) - 1
        if not first or value == (1 << 7 * length) - 1:  # all ones: the length was unknown when it was written
            return
        start += length + value
        yield start


def _is_mp4_truncated(file: BinaryIO, size: int) -> bool:  # MP4, QuickTime: boxes; a size of 0 extends to the end
    start, is_fragmented = 0, False
    while start + 8 <= size:
        head = _read(file, start, 16)
        length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if length < 8 or head[4:8] not in BOXES:  # cameras append proprietary data
            return False
        is_fragmented |= head[4:8] == b"moof"
        start += length
    return not is_fragmented and start > size
