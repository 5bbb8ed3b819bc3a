"""Endless silence in the codec of a sound that is carried over packet by packet."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

from pavdm_cli.errors import UsageError
from pavdm_cli.video.audio.timing import AudioPacket

# Codecs whose packets of silence a decoder takes after any others of the same shape, and their encoders.
SILENT = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame", "ac3": "ac3", "flac": "flac"}
NO_SILENCE = "use --audio keep, or --audio drop"


def check_silence(streams: Sequence[AudioStream]) -> None:
    """Refuse to follow a sound by silence in a codec that cannot be encoded so. Raises: UsageError."""
    for stream in streams:
        _encoder_like(stream.codec_context)


class Silence:
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
