"""Copy subtitles cue by cue, in step with the video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.stream import Stream

from pavdm_cli.video.audio.timing import packet_time
from pavdm_cli.video.write.extras import Extras

EMPTY_CUE = b"\0\0"  # of mov_text


class _Cue(NamedTuple):
    """A stream's last cue, in seconds. Muxers reject a cue that starts before it."""

    start: Fraction
    end: Fraction
    time_base: Fraction


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
        last_cues: dict[int, _Cue] = {}  # by stream
        try:
            for packet in source.demux(*streams) if streams else ():
                if packet.size and packet.pts is not None:
                    start, duration = packet.pts * packet.time_base - self._offset, packet.duration or 0
                    end = start + duration * packet.time_base
                    if end <= 0 < duration:  # over before the video starts
                        continue
                    index = packet.stream.index
                    time = max(start, last_cues[index].start if index in last_cues else Fraction(0))
                    packet.duration = round((max(end, time) - time) / packet.time_base) if duration else 0
                    last_cues[index] = _Cue(time, max(end, time), packet.time_base)
                    yield self._retarget(packet, index, time)
        except av.FFmpegError:  # the rest is damaged
            pass
        for index, cue in last_cues.items():
            if self._targets[index].codec_context.name == "mov_text":  # else the muxer doubles the last cue's duration
                empty: av.Packet[Any] = av.Packet(EMPTY_CUE)
                empty.time_base, empty.duration = cue.time_base, max(1, round(Fraction(1, 1000) / cue.time_base))
                yield self._retarget(empty, index, cue.end)

    def _retarget(self, packet: av.Packet[Any], index: int, time: Fraction) -> av.Packet[Any]:
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self._targets[index]
        return packet
