"""Exact times of sound packets: their samples are counted where a container rounds timestamps."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, TypeAlias

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.packet import PacketSideData, packet_sidedata_type_from_literal

AudioPacket: TypeAlias = "av.Packet[AudioStream]"
OPUS_FRAMES = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)  # samples by RFC 6716, table 2
PREROLL = Fraction(1, 10)  # seconds before the start of a trimmed sound that its decoder may need
TRACK_UID, CODEC_DELAY = b"\x73\xc5\x88", b"\x56\xaa\x88"  # Matroska elements, each of eight bytes


class SampleClock:
    """The times of one stream's packets, in order, in seconds of the file's own clock."""

    def __init__(self, stream: AudioStream) -> None:
        self._codec = stream.codec_context
        self._next: Fraction | None = None
        if stream.start_time is not None and stream.time_base and self._codec.delay:
            self._next = stream.start_time * stream.time_base - Fraction(self._codec.delay, self._codec.sample_rate)

    def place(self, packet: AudioPacket) -> tuple[Fraction, Fraction]:
        """When a packet starts and how long it is heard, what is trimmed from its end left out."""
        tick, time = packet.time_base, start(packet)
        rate, samples = self._codec.sample_rate, samples_per_packet(packet, self._codec)
        follows = time is None or (samples and self._next is not None and abs(time - self._next) <= tick * 3 / 2)
        time = (self._next if follows else time) or Fraction(0)
        length = (packet.duration or 0) * tick
        if samples and (not length or abs(length - Fraction(samples, rate)) <= tick or end_padding(packet)):
            length = Fraction(samples, rate)
        self._next = time + length
        return time, length - Fraction(end_padding(packet), rate)


def start(packet: av.Packet[Any]) -> Fraction | None:
    """When a packet starts by its timestamp, in seconds."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * packet.time_base


def samples_per_packet(packet: AudioPacket, codec: AudioCodecContext) -> int:
    """Samples that a packet decodes to at the codec's rate, or 0 where only a decoder knows."""
    name = codec.codec.canonical_name
    if name != "opus":
        return codec.frame_size or (1536 if name == "ac3" else 0)
    data = bytes(packet)[:2]
    count = (1, 2, 2, (data[1] & 63) if len(data) > 1 else 0)[data[0] & 3]
    return OPUS_FRAMES[data[0] >> 3] * count * codec.sample_rate // 48000


def end_padding(packet: AudioPacket) -> int:
    """Samples at the end of a packet that are not to be heard."""
    if not packet.has_sidedata("skip_samples"):
        return 0
    return int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[4:8], "little")


def start_padding(packet: AudioPacket) -> int:
    """Samples from the start of a packet on that are not to be heard."""
    if not packet.has_sidedata("skip_samples"):
        return 0
    return int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")


def set_end_padding(packet: AudioPacket, samples: int) -> None:
    """Say that so many samples at the end of a packet are not to be heard."""
    front = bytes(packet.get_sidedata("skip_samples"))[:4] if packet.has_sidedata("skip_samples") else bytes(4)
    data = PacketSideData(packet_sidedata_type_from_literal("skip_samples"), 10)  # type: ignore[call-arg]
    data.update(front + samples.to_bytes(4, "little") + bytes(2))
    packet.set_sidedata(data)


def template_with_codec_delay(stream: AudioStream, packet: AudioPacket, samples: int) -> AudioStream:
    """A stream like another whose first `samples` are not to be heard, as a template for Matroska.

    PyAV can copy a codec's delay but not set it, so that a header is written, changed and read again.
    """
    header = io.BytesIO()
    with av.open(header, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        copy = av.Packet(bytes(packet))
        copy.stream = container.add_stream_from_template(stream)
        copy.pts = copy.dts = 0
        container.mux(copy)
    data = header.getvalue()
    at = data.index(TRACK_UID)
    delay = round(samples * 10**9 / stream.codec_context.sample_rate).to_bytes(8)
    changed = data[:at] + CODEC_DELAY + delay + data[at + len(TRACK_UID) + 8 :]
    template: AudioStream = av.open(io.BytesIO(changed)).streams.audio[0]
    return template
