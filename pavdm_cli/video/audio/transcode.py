"""Sound that a container cannot hold, or that not every player reads in it, stored as another lossless codec."""

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

from pavdm_cli.video.audio.timing import AudioPacket, start
from pavdm_cli.video.write.encode import FORMATS

PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}  # what Matroska holds
FLAC = ("u8", "s16", "s32")  # formats of samples that FLAC holds, with up to 24 bits
FLAC_CHANNELS = 8
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
SILENT_SAMPLES = 1024


def storage(stream: AudioStream, suffix: str) -> str | None:
    """The encoder that stores a sound losslessly in such a file: empty to carry its packets over, None if none can.

    PCM in MP4 is read by FFmpeg 6 and later alone, so that there it is always converted.
    """
    codec, name = stream.codec_context, stream.codec_context.codec.canonical_name
    if not (suffix == ".mp4" and name.startswith("pcm_")) and holds(stream, suffix):
        return ""
    sample, wide = codec.format.packed.name, _is_wide(stream)
    if suffix not in (".mp4", ".mkv"):
        return None
    fits_flac = sample in FLAC and not wide and codec.layout.nb_channels <= FLAC_CHANNELS
    if fits_flac and (suffix == ".mp4" or not name.startswith("pcm_")):
        return "flac"
    if suffix == ".mp4":
        return None
    return {"s32": "pcm_s32le" if wide else "pcm_s24le", **PCM}.get(sample)


class Converter:
    """Decodes the packets of one stream and encodes their samples, which stay the same, with another codec."""

    def __init__(self, stream: AudioStream, encoder: str, container: OutputContainer) -> None:
        self._old = stream.codec_context
        self.stream, self._layout = _add_stream(container, encoder, stream)
        self._format = self.stream.codec_context.format.name
        self._next: int | None = None  # sample

    def convert(self, packet: AudioPacket | None, time: Fraction) -> list[AudioPacket]:
        """The packets that are ready once `packet`, heard from `time`, is decoded; a damaged one is left out."""
        encoded: list[AudioPacket] = []
        try:
            begin = start(packet) if packet else None
            for frame in self._old.decode(packet):
                stamp = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                late = 0 if begin is None or stamp is None else stamp - begin
                self._move_to(round((time + late) * self._old.sample_rate))
                encoded += self._encode(_samples(frame, self._format))
        except av.FFmpegError:
            return encoded
        return encoded

    def _move_to(self, sample: int) -> None:
        """Follow the input's timestamps at the start and after a gap, count samples otherwise."""
        if self._next is None or abs(sample - self._next) > self._old.sample_rate // 20:
            self._next = sample

    def silence(self) -> tuple[list[AudioPacket], Fraction]:
        """A little silence after what was converted, and how long it is."""
        level = 128 if self._format == "u8" else 0
        silent = np.full((SILENT_SAMPLES, self._old.layout.nb_channels), level, DTYPES[self._format])
        return self._encode(silent), Fraction(SILENT_SAMPLES, self._old.sample_rate)

    def flush(self) -> list[AudioPacket]:
        """What decoder and encoder hold back at the end."""
        rest = self.convert(None, Fraction(self._next or 0, self._old.sample_rate))
        return [*rest, *self.stream.encode(None)]

    def _encode(self, samples: NDArray[Any]) -> list[AudioPacket]:  # (count, channels)
        packed = np.ascontiguousarray(samples).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format=self._format, layout=self._layout)
        frame.sample_rate, frame.pts = self._old.sample_rate, self._next
        frame.time_base = Fraction(1, self._old.sample_rate)
        self._next = (self._next or 0) + len(samples)
        return list(self.stream.encode(frame))


def _samples(frame: av.AudioFrame, wanted: str) -> NDArray[Any]:  # (count, channels)
    """A decoded frame's samples in a packed format that holds them exactly."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8 and wanted == "s16":
        return (data.astype(np.int16) - 128) << 8
    return data.astype(DTYPES[wanted], copy=False)


def _add_stream(container: OutputContainer, encoder: str, like: AudioStream) -> tuple[AudioStream, str]:
    """A stream for an encoder, opened, and its layout: the input's, or the usual one of as many channels."""
    old = like.codec_context
    stream = container.add_stream(encoder, rate=old.sample_rate)
    assert isinstance(stream, AudioStream)
    codec, layout = stream.codec_context, old.layout.name
    try:
        codec.layout = layout
    except ValueError:
        layout = LAYOUTS[old.layout.nb_channels]
        codec.layout = layout
    offered = [one.name for one in codec.codec.audio_formats or ()]
    codec.format = old.format.packed.name if old.format.packed.name in offered else "s16"
    codec.time_base = Fraction(1, old.sample_rate)
    codec.open()
    return stream, layout


def _is_wide(stream: AudioStream) -> bool:
    """Whether samples have more than 24 bits."""
    name = stream.codec_context.codec.canonical_name
    narrow = name.startswith(("pcm_s24", "pcm_u24", "pcm_bluray", "pcm_dvd"))
    return stream.codec_context.format.packed.name == "s32" and not narrow


def holds(stream: Stream, suffix: str) -> bool:
    """Whether packets of a stream can be carried over to such a file, found out by writing its header."""
    try:
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True
