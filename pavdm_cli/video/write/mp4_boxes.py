"""Boxes of MP4 files: split bytes into them, and move the index of a finished file to its front."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
OFFSETS = {b"stco": ">u4", b"co64": ">u8"}  # tables of positions in the file
BLOCK = 1 << 22  # bytes moved at a time


class Box(NamedTuple):
    """Where a box is."""

    name: bytes
    start: int
    size: int
    header: int  # bytes before its contents


def boxes(data: bytes | bytearray, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes in a range of bytes."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        box = _box(bytes(data[start : start + 16]), start, end)
        yield box
        start += box.size


def move_index_to_front(path: Path) -> None:
    """Move `moov`, the last box, behind the first one, so that a player can start before it has the whole file.

    In place and without more space. Offsets that would not fit in 32 bits leave the file as it is. Raises: OSError.
    """
    with path.open("r+b") as file:
        outer = list(_file_boxes(file))
        index, first = outer[-1], outer[0].size
        if index.name != b"moov":
            return
        file.seek(index.start)
        moov = bytearray(file.read(index.size))
        if _shift_offsets(moov, 0, len(moov), index.size):
            _move(file, first, index.start, index.size)
            file.seek(first)
            file.write(moov)


def _file_boxes(file: BinaryIO) -> Iterator[Box]:
    end, start = file.seek(0, 2), 0
    while start + 8 <= end:
        file.seek(start)
        box = _box(file.read(16), start, end)
        yield box
        start += box.size


def _box(header: bytes, start: int, end: int) -> Box:
    size, name, large = struct.unpack(">I4sQ", header.ljust(16, b"\0"))
    if size == 1:
        return Box(name, start, large, 16)
    return Box(name, start, size or end - start, 8)


def _shift_offsets(moov: bytearray, start: int, end: int, distance: int) -> bool:
    """Add to all offsets in a range of boxes; False if one does not fit."""
    for box in boxes(moov, start, end):
        inside, stop = box.start + box.header, box.start + box.size
        if box.name in CONTAINERS and not _shift_offsets(moov, inside, stop, distance):
            return False
        if box.name in OFFSETS:
            count = int.from_bytes(moov[inside + 4 : inside + 8])
            positions = np.frombuffer(moov, OFFSETS[box.name], count, inside + 8)
            if len(positions) and int(positions.max()) + distance > np.iinfo(positions.dtype).max:
                return False
            positions += distance
    return True


def _move(file: BinaryIO, start: int, end: int, distance: int) -> None:
    """Move bytes of a file towards its end, the last ones first."""
    while end > start:
        begin = max(start, end - BLOCK)
        file.seek(begin)
        data = file.read(end - begin)
        file.seek(begin + distance)
        file.write(data)
        end = begin
