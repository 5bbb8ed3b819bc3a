"""Subtitles, carried over cue by cue beside the picture."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from pavdm_cli.video.audio.timing import start
from pavdm_cli.video.write.extras import Extras

EMPTY_TEXT = b"\0\0"  # a cue of MP4 that shows nothing


class Subtitles:
    """The cues of all subtitle streams of a file, given out as far as the picture has come."""

    def __init__(self, source: InputContainer, extras: Extras, added: dict[int, Stream]) -> None:
        self._offset = extras.offset
        self._added = added
        self._packets = self._carried(source, extras.subtitles)
        self._next = next(self._packets, None)

    def until(self, time: Fraction | None) -> list[av.Packet[Any]]:
        """The cues that start before `time` and were not given yet; None is the end of the file."""
        given = []
        while self._next is not None and (time is None or (start(self._next) or 0) < time):
            given.append(self._next)
            self._next = next(self._packets, None)
        return given

    def _carried(self, source: InputContainer, streams: list[Stream]) -> Iterator[av.Packet[Any]]:
        ends: dict[int, Fraction] = {}
        try:
            for packet in source.demux(*streams) if streams else ():
                if packet.size and packet.pts is not None:
                    time = max(Fraction(0), packet.pts * packet.time_base - self._offset)
                    index = packet.stream.index
                    ends[index] = time + (packet.duration or 0) * packet.time_base
                    yield self._address(packet, index, time)
        except av.FFmpegError:  # damaged from here on
            pass
        for index, end in ends.items():
            if self._added[index].codec_context.name == "mov_text":  # else the muxer makes the last cue twice as long
                last: av.Packet[Any] = av.Packet(EMPTY_TEXT)
                last.time_base, last.duration = Fraction(1, 1000), 1
                yield self._address(last, index, end)

    def _address(self, packet: av.Packet[Any], index: int, time: Fraction) -> av.Packet[Any]:
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self._added[index]
        return packet
