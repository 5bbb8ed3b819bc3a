"""Add cover art to a finished MP4: PyAV cannot give it to the muxer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

PNG, JPEG = 14, 13  # well-known types of the item list (QuickTime file format)
HANDLER = bytes(8) + b"mdirappl" + bytes(9)  # of iTunes metadata


def append_covers(path: Path, covers: Sequence[bytes]) -> None:
    """Add PNG or JPEG images to the user data of a file whose last box is `moov`."""
    data = [_box(b"data", struct.pack(">II", PNG if cover[:4] == b"\x89PNG" else JPEG, 0), cover) for cover in covers]
    meta = _box(b"meta", bytes(4), _box(b"hdlr", HANDLER), _box(b"ilst", _box(b"covr", *data)))
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        moov = _last_box(file, b"moov", 0, end)
        if moov is None:
            return
        udta = _last_box(file, b"udta", moov[0] + 8, end)
        addition = meta if udta else _box(b"udta", meta)
        file.seek(end)
        file.write(addition)
        for start, size in filter(None, (moov, udta)):
            file.seek(start)
            file.write(struct.pack(">I", size + len(addition)))


def _last_box(file: BinaryIO, name: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Start and size of the last box in a range, if it has this name."""
    while start + 8 <= end:
        file.seek(start)
        size, box_name, large_size = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        size = large_size if size == 1 else size or end - start
        if size < 8:
            return None
        if start + size == end:
            return (start, size) if box_name == name else None
        start += size
    return None


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body
