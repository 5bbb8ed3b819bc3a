"""Encode endless silence with the codec parameters of an existing audio stream."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

from pavdm_cli.errors import UsageError
from pavdm_cli.video.audio.timing import AudioPacket

# Encoders of codecs whose packets of silence a decoder accepts after packets of another encoder.
ENCODERS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame", "ac3": "ac3", "flac": "flac"}
HINT = "use --audio keep, or --audio drop"


def check_silence(streams: Sequence[AudioStream]) -> None:
    """Raises: UsageError if silence cannot follow one of the streams."""
    for stream in streams:
        _matching_encoder(stream.codec_context)


class SilenceEncoder:
    """Encodes packets of silence that can follow a stream's own. Raises: UsageError."""

    def __init__(self, codec: AudioCodecContext) -> None:
        self._encoder = _matching_encoder(codec)
        self._rate = codec.sample_rate
        self._samples = self._encoder.frame_size or 1024
        self._packets: list[AudioPacket] = []
        self._position = 0  # in samples

    def next(self) -> tuple[AudioPacket, Fraction]:
        """A packet and its duration in seconds."""
        while not self._packets:
            self._packets = list(self._encoder.encode(self._silent_frame()))
        return self._packets.pop(0), Fraction(self._samples, self._rate)

    def _silent_frame(self) -> av.AudioFrame:
        frame = av.AudioFrame(self._encoder.format.name, self._encoder.layout.name, self._samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
        self._position += self._samples
        return frame


def _matching_encoder(codec: AudioCodecContext) -> AudioCodecContext:
    name = codec.codec.canonical_name
    try:
        encoder = _open_encoder(codec, name if name.startswith("pcm_") else ENCODERS.get(name, ""))
    except (ValueError, av.FFmpegError):
        raise UsageError(f"silence cannot be encoded as {name} with these parameters", HINT) from None
    if name == "aac" and _aac_parameters(encoder.extradata) != _aac_parameters(codec.extradata):
        raise UsageError("silence cannot be encoded in this AAC profile", HINT)
    return encoder


def _open_encoder(template: AudioCodecContext, name: str) -> AudioCodecContext:
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, AudioCodecContext)
    formats = [audio_format.name for audio_format in encoder.codec.audio_formats or [template.format]]
    encoder.format = template.format.name if template.format.name in formats else formats[0]
    encoder.sample_rate, encoder.layout = template.sample_rate, template.layout.name
    encoder.time_base = Fraction(1, template.sample_rate)
    encoder.open()
    return encoder


def _aac_parameters(extradata: bytes | None) -> int:
    """Profile, sample rate and channels: the first 13 bits of an AudioSpecificConfig (ISO/IEC 14496-3)."""
    return int.from_bytes((extradata or b"")[:2].ljust(2, b"\0")) >> 3
