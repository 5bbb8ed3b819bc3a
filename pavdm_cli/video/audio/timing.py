"""Sample-accurate times of audio packets: counts samples where the container rounds timestamps."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, TypeAlias

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.packet import PacketSideData, packet_sidedata_type_from_literal

AudioPacket: TypeAlias = "av.Packet[AudioStream]"
OPUS_FRAMES = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)  # samples: RFC 6716, table 2
PREROLL = Fraction(1, 10)  # seconds before the start of trimmed audio that its decoder may need
TRACK_UID, CODEC_DELAY = b"\x73\xc5\x88", b"\x56\xaa\x88"  # Matroska elements of eight bytes


class SampleClock:
    """Computes the times of one stream's packets, which must be passed in order; they always increase."""

    def __init__(self, stream: AudioStream) -> None:
        self._codec = stream.codec_context
        self._last: Fraction | None = None  # start of the previous packet
        self._next: Fraction | None = None  # its end
        if stream.start_time is not None and stream.time_base and self._codec.delay:
            self._next = stream.start_time * stream.time_base - Fraction(self._codec.delay, self._codec.sample_rate)

    def time_packet(self, packet: AudioPacket) -> tuple[Fraction, Fraction]:
        """Start and duration in seconds, without end padding."""
        tick, time = packet.time_base, packet_time(packet)
        rate, samples = self._codec.sample_rate, samples_per_packet(packet, self._codec)
        repeats = time is not None and self._last is not None and time <= self._last  # or goes back
        follows = samples and time is not None and self._next is not None and abs(time - self._next) <= tick * 3 / 2
        time = (self._next if time is None or repeats or follows else time) or Fraction(0)
        duration = (packet.duration or 0) * tick
        if samples and (not duration or abs(duration - Fraction(samples, rate)) <= tick or end_padding(packet)):
            duration = Fraction(samples, rate)
        self._last, self._next = time, time + duration
        return time, duration - Fraction(end_padding(packet), rate)


def packet_time(packet: av.Packet[Any]) -> Fraction | None:
    """The packet's timestamp in seconds."""
    timestamp = packet.dts if packet.pts is None else packet.pts
    return None if timestamp is None else timestamp * packet.time_base


def samples_per_packet(packet: AudioPacket, codec: AudioCodecContext) -> int:
    """Decoded samples at the codec's rate, or 0 if only decoding can tell."""
    name = codec.codec.canonical_name
    if name != "opus":
        return codec.frame_size or (1536 if name == "ac3" else 0)
    data = bytes(packet)[:2]
    count = (1, 2, 2, (data[1] & 63) if len(data) > 1 else 0)[data[0] & 3]
    return OPUS_FRAMES[data[0] >> 3] * count * codec.sample_rate // 48000


def start_padding(packet: AudioPacket) -> int:
    """Samples to discard at the start of a packet."""
    return int.from_bytes(_skip_samples(packet)[:4], "little")


def end_padding(packet: AudioPacket) -> int:
    """Samples to discard at the end of a packet."""
    return int.from_bytes(_skip_samples(packet)[4:8], "little")


def set_end_padding(packet: AudioPacket, samples: int) -> None:
    """Mark samples at the end of a packet to be discarded."""
    start = _skip_samples(packet)[:4].ljust(4, b"\0")
    data = PacketSideData(packet_sidedata_type_from_literal("skip_samples"), 10)  # type: ignore[call-arg]
    data.update(start + samples.to_bytes(4, "little") + bytes(2))
    packet.set_sidedata(data)


def _skip_samples(packet: AudioPacket) -> bytes:
    return bytes(packet.get_sidedata("skip_samples")) if packet.has_sidedata("skip_samples") else b""


def template_with_codec_delay(stream: AudioStream, packet: AudioPacket, samples: int) -> AudioStream:
    """A template for a Matroska stream whose first `samples` are discarded.

    PyAV can copy a codec delay but not set it, so a header is written, patched and read back.
    Raises: ValueError if that has no audio stream, as after damage to the input's header.
    """
    header = io.BytesIO()
    with av.open(header, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        copy = av.Packet(bytes(packet))
        copy.stream = container.add_stream_from_template(stream)
        copy.pts = copy.dts = 0
        container.mux(copy)
    data = header.getvalue()
    position = data.index(TRACK_UID)
    delay = round(samples * 10**9 / stream.codec_context.sample_rate).to_bytes(8)
    new_header = data[:position] + CODEC_DELAY + delay + data[position + len(TRACK_UID) + 8 :]
    if not (templates := av.open(io.BytesIO(new_header)).streams.audio):
        raise ValueError("the header of the audio stream cannot be read back")
    return templates[0]
