"""Store audio losslessly in another codec where a container, or most players, cannot handle its own."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream
from numpy.typing import NDArray

from pavdm_cli.video.audio.timing import AudioPacket, packet_time
from pavdm_cli.video.write.remux import MUXERS

PCM_ENCODERS = {"u8": "pcm_u8", "s16": "pcm_s16le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}  # for Matroska
FLAC_FORMATS = ("u8", "s16", "s32")  # FLAC holds up to 24 bits
FLAC_CHANNELS = 8
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
SILENCE_SAMPLES = 1024


def lossless_encoder(stream: AudioStream, suffix: str) -> str | None:
    """The encoder that stores a stream losslessly in such a file; empty to copy its packets, None if there is none.

    PCM in MP4 is always transcoded: only FFmpeg 6 and later read it.
    """
    codec, name = stream.codec_context, stream.codec_context.codec.canonical_name
    if not (suffix == ".mp4" and name.startswith("pcm_")) and can_mux(stream, suffix):
        return ""
    if suffix not in (".mp4", ".mkv") or codec.format is None:
        return None
    sample_format, over_24_bits = codec.format.packed.name, _exceeds_24_bits(stream)
    fits_flac = sample_format in FLAC_FORMATS and not over_24_bits and codec.layout.nb_channels <= FLAC_CHANNELS
    if fits_flac and (suffix == ".mp4" or not name.startswith("pcm_")):
        return "flac"
    if suffix == ".mp4":
        return None
    return {"s32": "pcm_s32le" if over_24_bits else "pcm_s24le", **PCM_ENCODERS}.get(sample_format)


class Transcoder:
    """Decodes the packets of one stream and encodes the same samples with another codec."""

    def __init__(self, stream: AudioStream, encoder: str, container: OutputContainer) -> None:
        self._decoder = stream.codec_context
        self.stream, self._layout = _add_stream(container, encoder, stream)
        self._format = self.stream.codec_context.format.name
        self._next: int | None = None  # sample

    def transcode(self, packet: AudioPacket | None, time: Fraction) -> list[AudioPacket]:
        """The packets that are complete after `packet`, which starts at `time`; damaged packets are skipped."""
        packets: list[AudioPacket] = []
        try:
            start = packet_time(packet) if packet else None
            for frame in self._decoder.decode(packet):
                timestamp = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                delay = 0 if start is None or timestamp is None else timestamp - start
                self._resynchronize(round((time + delay) * self._decoder.sample_rate))
                packets += self._encode(_to_samples(frame, self._format))
        except av.FFmpegError:
            return packets
        return packets

    def _resynchronize(self, sample: int) -> None:
        """Follow the input's timestamps at the start and after a gap; otherwise count samples."""
        if self._next is None or abs(sample - self._next) > self._decoder.sample_rate // 20:
            self._next = sample

    def silence(self) -> tuple[list[AudioPacket], Fraction]:
        """A short silence after the last samples, and its duration."""
        zero = 128 if self._format == "u8" else 0
        silent = np.full((SILENCE_SAMPLES, self._decoder.layout.nb_channels), zero, DTYPES[self._format])
        return self._encode(silent), Fraction(SILENCE_SAMPLES, self._decoder.sample_rate)

    def flush(self) -> list[AudioPacket]:
        """The packets that decoder and encoder still buffer."""
        packets = self.transcode(None, Fraction(self._next or 0, self._decoder.sample_rate))
        return [*packets, *self.stream.encode(None)]

    def _encode(self, samples: NDArray[Any]) -> list[AudioPacket]:  # (samples, channels)
        interleaved = np.ascontiguousarray(samples).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format=self._format, layout=self._layout)
        frame.sample_rate, frame.pts = self._decoder.sample_rate, self._next
        frame.time_base = Fraction(1, self._decoder.sample_rate)
        self._next = (self._next or 0) + len(samples)
        return list(self.stream.encode(frame))


def _to_samples(frame: av.AudioFrame, sample_format: str) -> NDArray[Any]:  # (samples, channels)
    """A decoded frame's samples in a packed format that represents them exactly."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8 and sample_format == "s16":
        return (data.astype(np.int16) - 128) << 8
    return data.astype(DTYPES[sample_format], copy=False)


def _add_stream(container: OutputContainer, encoder: str, template: AudioStream) -> tuple[AudioStream, str]:
    """An opened output stream and its layout: the input's, or the usual one for its number of channels."""
    source = template.codec_context
    stream = container.add_stream(encoder, rate=source.sample_rate)
    assert isinstance(stream, AudioStream)
    codec, layout = stream.codec_context, source.layout.name
    try:
        codec.layout = layout
    except ValueError:
        layout = LAYOUTS[source.layout.nb_channels]
        codec.layout = layout
    formats = [audio_format.name for audio_format in codec.codec.audio_formats or ()]
    codec.format = source.format.packed.name if source.format.packed.name in formats else "s16"
    codec.time_base = Fraction(1, source.sample_rate)
    codec.open()
    return stream, layout


def _exceeds_24_bits(stream: AudioStream) -> bool:
    name = stream.codec_context.codec.canonical_name
    has_24_bits = name.startswith(("pcm_s24", "pcm_u24", "pcm_bluray", "pcm_dvd"))
    return stream.codec_context.format.packed.name == "s32" and not has_24_bits


def can_mux(stream: Stream, suffix: str) -> bool:
    """Whether a stream's packets can be copied to such a file, tested by writing a header."""
    try:
        with av.open(io.BytesIO(), "w", format=MUXERS[suffix]) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True
