"""A Matroska header of a stream, to read properties that PyAV does not expose."""

from __future__ import annotations

import io

import av
from av.video.stream import VideoStream


def matroska_header(stream: VideoStream) -> bytes:
    """The header that FFmpeg writes for the stream; empty for raw video, which Matroska does not support."""
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (ValueError, av.FFmpegError):
        return b""
    return header.getvalue()


def read_integer(data: bytes, element: bytes) -> int:
    """The value of an element of one or two bytes, or 0 if it is absent; `element`: its ID."""
    length, *value = data.partition(element)[2][:3] or b"\x80"
    return int.from_bytes(value[: length & 3])
