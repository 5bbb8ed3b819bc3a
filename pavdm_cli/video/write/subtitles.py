"""Copy subtitles cue by cue, in step with the video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from pavdm_cli.video.audio.timing import packet_time
from pavdm_cli.video.write.extras import Extras

EMPTY_CUE = b"\0\0"  # of mov_text


class Subtitles:
    """The cues of all subtitle streams of a file."""

    def __init__(self, source: InputContainer, extras: Extras, targets: dict[int, Stream]) -> None:
        """targets: output streams by the index of the input stream."""
        self._offset = extras.offset
        self._targets = targets
        self._packets = self._copy_packets(source, extras.subtitles)
        self._next = next(self._packets, None)

    def packets_until(self, time: Fraction | None) -> list[av.Packet[Any]]:
        """The next cues, up to those that start before `time`; None is the end of the file."""
        packets = []
        while self._next is not None and (time is None or (packet_time(self._next) or 0) < time):
            packets.append(self._next)
            self._next = next(self._packets, None)
        return packets

    def _copy_packets(self, source: InputContainer, streams: list[Stream]) -> Iterator[av.Packet[Any]]:
        ends: dict[int, Fraction] = {}
        try:
            for packet in source.demux(*streams) if streams else ():
                if packet.size and packet.pts is not None:
                    start, duration = packet.pts * packet.time_base - self._offset, packet.duration or 0
                    end = start + duration * packet.time_base
                    if end <= 0 < duration:  # over before the video starts
                        continue
                    time, index = max(Fraction(0), start), packet.stream.index
                    packet.duration = round((end - time) / packet.time_base) if duration else 0
                    ends[index] = max(end, time)
                    yield self._retarget(packet, index, time)
        except av.FFmpegError:  # the rest is damaged
            pass
        for index, end in ends.items():
            if self._targets[index].codec_context.name == "mov_text":  # else the muxer doubles the last cue's duration
                last: av.Packet[Any] = av.Packet(EMPTY_CUE)
                last.time_base, last.duration = Fraction(1, 1000), 1
                yield self._retarget(last, index, end)

    def _retarget(self, packet: av.Packet[Any], index: int, time: Fraction) -> av.Packet[Any]:
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self._targets[index]
        return packet
