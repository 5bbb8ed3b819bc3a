"""Copy the packets of a growing file to a complete one: an index, and everything but the video stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from pavdm_cli.runtime.durable import sync_file
from pavdm_cli.video.io.info import video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.write.mp4_boxes import move_index_to_front
from pavdm_cli.video.write.sink import Sink

MUXERS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
VideoPacket: TypeAlias = "av.Packet[VideoStream]"


class OtherStreams(Protocol):
    """What a file holds in addition to the video stream."""

    def add_streams(self, container: OutputContainer) -> None:
        """Add all streams to a new file, after its video stream."""

    def packets_until(self, time: Fraction) -> Sequence[av.Packet[Any]]:
        """The next packets, up to those that start before `time`."""

    def flush(self, end: Fraction) -> Sequence[av.Packet[Any]]:
        """All remaining packets, up to the end of the video."""

    def finish_file(self, path: Path) -> None:
        """Add what the muxer cannot write to the closed file, whose index is at its end."""


@dataclass(frozen=True, slots=True)
class SurroundingPackets:
    """The packets of another file, with the same encoder's header, that stay around those of the growing one."""

    path: Path
    start: Fraction  # seconds at which the growing file's frames begin
    end: Fraction | None  # at which they end; None: nothing follows them

    def surround(self, packets: Iterable[VideoPacket], source: InputContainer) -> Iterator[VideoPacket]:
        """Those before, the given ones, and those after, in the order in which they are decoded."""
        packets_sent = False
        for packet in source.demux(video_stream(source, self.path)):
            time = None if packet.pts is None else packet.pts * packet.time_base
            if time is not None and time < self.start:
                yield packet
                continue
            if not packets_sent:
                yield from packets
                packets_sent = True
            if time is not None and self.end is not None and time >= self.end:
                yield packet
        if not packets_sent:
            yield from packets


@dataclass(frozen=True, slots=True)
class Remux:
    """How a file is copied: the same bytes each time."""

    comment: str
    rate: Fraction  # frames per second, as containers declare it
    delay: Fraction  # seconds by which frames are decoded before they are presented
    streams: OtherStreams | None = None
    end: Fraction = Fraction(0)  # of the video, in seconds
    around: SurroundingPackets | None = None

    def __call__(self, source: Path, target: Path) -> None:
        """Copy the growing file `source` to `target`, and wait until that is on the disk. Raises: OSError."""
        try:
            self._copy(source, target)
            if self.streams:
                self.streams.finish_file(target)
            if source.suffix.lower() == ".mp4":
                move_index_to_front(target)
            sync_file(target)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise

    def _copy(self, source: Path, target: Path) -> None:
        suffix = source.suffix.lower()
        options = {"fflags": "+bitexact"} | ({"movflags": "+use_metadata_tags"} if suffix == ".mp4" else {})
        with ExitStack() as stack:
            growing = stack.enter_context(av.open(str(source.absolute())))
            template, packets = growing.streams.video[0], growing.demux(video=0)
            if self.around:
                source_file = stack.enter_context(open_input(self.around.path))
                template = video_stream(source_file, self.around.path)
                packets = self.around.surround(packets, source_file)
            sink = stack.enter_context(closing(Sink(target)))
            with closing(av.open(sink, "w", format=MUXERS[suffix], options=options)) as file:
                file.metadata["comment"] = self.comment
                stream = file.add_stream_from_template(template)
                stream.codec_context.framerate = self.rate
                if self.streams:
                    self.streams.add_streams(file)
                for packet in self._packets(packets):
                    self._mux_others_until(packet, file)
                    packet.stream = stream
                    file.mux(packet)
                    sink.check()
                file.mux(self.streams.flush(self.end) if self.streams else [])
            sink.check()

    def _packets(self, packets: Iterable[VideoPacket]) -> Iterator[VideoPacket]:
        """The packets with the decoding times that they were written with, which Matroska does not store."""
        for group in _groups(packets):
            times = sorted(packet.pts for packet in group if packet.pts is not None)
            for packet, time in zip(group, times, strict=True):
                packet.dts = time - round(self.delay / packet.time_base)
                yield packet

    def _mux_others_until(self, packet: VideoPacket, file: OutputContainer) -> None:
        if self.streams and packet.pts is not None:
            file.mux(self.streams.packets_until(packet.pts * packet.time_base))


def _groups(packets: Iterable[VideoPacket]) -> Iterator[list[VideoPacket]]:
    """The packets from one keyframe to the next."""
    group: list[VideoPacket] = []
    for packet in packets:
        if not packet.size:
            continue
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group
