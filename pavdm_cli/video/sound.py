"""The sound of a video, carried over packet by packet as it is, and silence after it in the same codec."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, TypeAlias

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video.encode import FORMATS

Audio = Literal["keep", "silence", "drop"]
AudioPacket: TypeAlias = "av.Packet[AudioStream]"

# Codecs whose packets of silence a decoder takes after any others of the same shape, and their encoders.
SILENT = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame", "ac3": "ac3", "flac": "flac"}
NO_SILENCE = "use --audio keep, or --audio drop"


def _start(packet: AudioPacket) -> Fraction:
    stamp = packet.dts if packet.pts is None else packet.pts
    return (stamp or 0) * packet.time_base


def starts(streams: Sequence[AudioStream]) -> list[Fraction]:
    """Seconds at which streams begin to be heard: what an encoder put before the sound is not counted."""
    return [one.start_time * one.time_base for one in streams if one.start_time is not None and one.time_base]


def check_sound(codecs: Sequence[str], suffix: str, audio: Audio) -> None:
    """Refuse sound that the container cannot hold. Raises: OutputError."""
    if audio == "drop":
        return
    with av.open(io.BytesIO(), "w", format=FORMATS[suffix.lower()]) as container:
        wrong = [codec for codec in codecs if codec not in container.supported_codecs]
    if wrong:
        hint = "use -o x.mkv, which holds every sound, or --audio drop"
        raise OutputError(f"{suffix} files cannot hold {wrong[0]} sound", hint)


def check_silence(streams: Sequence[AudioStream]) -> None:
    """Refuse to follow a sound by silence in a codec that cannot be encoded so. Raises: UsageError."""
    for stream in streams:
        _encoder_like(stream.codec_context)


class SoundTrack:
    """One sound stream on its way from a file to another."""

    def __init__(self, old: AudioStream, new: AudioStream, silence: bool, offset: Fraction) -> None:
        self.old, self.new = old, new
        self._offset = offset
        self.end = Fraction(0)
        self._silence = _Silence(old.codec_context) if silence else None

    def carry(self, packet: AudioPacket) -> AudioPacket:
        """The packet, addressed to the new file and `offset` seconds earlier; nothing in it is changed."""
        untimed = packet.pts is None and packet.dts is None
        time = self.end if untimed else _start(packet) - self._offset
        length = (packet.duration or 0) * packet.time_base
        if self._offset % packet.time_base:
            packet.time_base = Fraction(1, self.old.codec_context.sample_rate)
            packet.duration = round(length / packet.time_base)
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self.new
        self.end = max(self.end, time + length)
        return packet

    def silence(self, until: Fraction) -> Iterator[AudioPacket]:
        """Packets of silence from the end of the sound so far."""
        while self._silence is not None and self.end < until:
            packet, length = self._silence.next()
            packet.time_base = Fraction(1, self.old.codec_context.sample_rate)
            packet.pts = packet.dts = round(self.end / packet.time_base)
            packet.duration = int(length / packet.time_base)
            packet.stream = self.new
            self.end += length
            yield packet


class Sound:
    """All sound streams of a file, given out as far as the picture has come so that a player finds both together."""

    def __init__(self, source: InputContainer | None, tracks: Sequence[SoundTrack]) -> None:
        self._tracks = {track.old.index: track for track in tracks}
        self._packets = self._demux(source) if source is not None and tracks else iter(())
        self._next = next(self._packets, None)

    def until(self, time: Fraction | None) -> list[AudioPacket]:
        """The packets that start before `time` and were not given yet; None is the end of the file."""
        given = []
        while self._next is not None and (time is None or _start(self._next) < time):
            given.append(self._next)
            self._next = next(self._packets, None)
        return given

    def silence(self, until: Fraction) -> list[AudioPacket]:
        """Packets of silence up to a time, once the file has no more sound."""
        if self._next is not None:
            return []
        return [packet for track in self._tracks.values() for packet in track.silence(until)]

    def _demux(self, source: InputContainer) -> Iterator[AudioPacket]:
        try:
            for packet in source.demux(tuple(track.old for track in self._tracks.values())):
                if packet.size:
                    yield self._tracks[packet.stream.index].carry(packet)
        except av.FFmpegError:  # damaged from here on
            return


class _Silence:
    """Endless packets of silence as a stream's own encoder would write them. Raises: UsageError."""

    def __init__(self, like: AudioCodecContext) -> None:
        self._encoder = _encoder_like(like)
        self._rate = like.sample_rate
        self._samples = self._encoder.frame_size or 1024
        self._ready: list[AudioPacket] = []
        self._given = 0

    def next(self) -> tuple[AudioPacket, Fraction]:
        """A packet and the seconds it lasts."""
        while not self._ready:
            self._ready = list(self._encoder.encode(self._frame()))
        return self._ready.pop(0), Fraction(self._samples, self._rate)

    def _frame(self) -> av.AudioFrame:
        frame = av.AudioFrame(self._encoder.format.name, self._encoder.layout.name, self._samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._given, Fraction(1, self._rate)
        self._given += self._samples
        return frame


def _encoder_like(codec: AudioCodecContext) -> AudioCodecContext:
    name = codec.codec.canonical_name
    try:
        encoder = _open_encoder(codec, _silent_encoder(name))
    except (ValueError, av.FFmpegError):
        raise UsageError(f"silence cannot be encoded as {name} of this shape", NO_SILENCE) from None
    if name == "aac" and _shape(encoder.extradata) != _shape(codec.extradata):
        raise UsageError("silence cannot be encoded as this profile of aac", NO_SILENCE)
    return encoder


def _open_encoder(like: AudioCodecContext, name: str) -> AudioCodecContext:
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, AudioCodecContext)
    offered = [form.name for form in encoder.codec.audio_formats or [like.format]]
    encoder.format = like.format.name if like.format.name in offered else offered[0]
    encoder.sample_rate, encoder.layout = like.sample_rate, like.layout.name
    encoder.time_base = Fraction(1, like.sample_rate)
    encoder.open()
    return encoder


def _silent_encoder(codec: str) -> str:
    return codec if codec.startswith("pcm_") else SILENT.get(codec, "")


def _shape(aac_header: bytes | None) -> int:
    """Profile, sample rate and channels: the first 13 bits of an AudioSpecificConfig (ISO/IEC 14496-3)."""
    return int.from_bytes((aac_header or b"")[:2].ljust(2, b"\0")) >> 3
