"""Write small video files for tests: every common format, and hostile ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

# Without these flags, swscale is off by up to 4 of 255 even on a frame of a single color.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
MAKERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
# x265 gives clips of few frames random decoding times if it may use B-frames.
PARTICULAR = {"libx265": {"x265-params": "log-level=none:bframes=0"}, "libsvtav1": {"svtav1-params": "lp=1"}}


@dataclass(frozen=True)
class ClipSpec:
    """Format of a clip; `times` are presentation times in seconds, evenly spaced if empty."""

    codec: str = "h264"
    rate: Fraction = Fraction(10)
    times: Sequence[Fraction] = ()
    pixels: str = "yuv420p"
    color_space: tuple[int, int, int] = (1, 1, 1)  # primaries, transfer, matrix: AVCOL numbers
    aspect: Fraction = Fraction(1)
    turn: int = 0  # display rotation in degrees, counter-clockwise
    mirrored: bool = False
    audio: str = ""
    seconds: float = 0  # of audio; as long as the video if 0
    crf: int = 8


def corners(height: int = 48, width: int = 64) -> np.ndarray:  # (H, W, 3)
    """A frame that differs from all its rotations and reflections: red, green, blue and white corners."""
    frame = np.zeros((height, width, 3), np.uint8)
    half = height // 2, width // 2
    frame[: half[0], : half[1]] = 220, 30, 30
    frame[: half[0], half[1] :] = 30, 200, 30
    frame[half[0] :, : half[1]] = 30, 30, 220
    frame[half[0] :, half[1] :] = 240, 240, 240
    return frame


def grays(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames numbered by their brightness: 20, 28, 36, ..., modulo 208."""
    return [np.full((height, width, 3), 20 + 8 * k % 208, np.uint8) for k in range(count)]


def make(path: Path, frames: Iterable[np.ndarray], spec: ClipSpec | None = None) -> Path:
    """Write the frames to `path` in the container of its suffix."""
    spec = spec or ClipSpec()
    frames = list(frames)
    with av.open(str(path), "w") as file:
        video = _video_stream(file, frames[0], spec)
        packets = [*_video_packets(video, frames, spec)]
        if spec.audio:
            packets += _audio_packets(file, spec, spec.seconds or float(len(frames) / spec.rate))
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    return path


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root: SVT-AV1 makes its threads real-time for root, and they starve every other process."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def _video_stream(file: av.container.OutputContainer, frame: np.ndarray, spec: ClipSpec) -> av.VideoStream:
    maker = MAKERS.get(spec.codec, spec.codec)
    quality = {"crf": str(spec.crf)} if spec.codec in MAKERS else {}
    video = file.add_stream(maker, rate=spec.rate, options={**quality, **PARTICULAR.get(maker, {})})
    video.height, video.width = frame.shape[:2]
    video.pix_fmt = spec.pixels
    codec = video.codec_context
    codec.color_primaries, codec.color_trc, codec.colorspace = spec.color_space
    codec.color_range = ColorRange.JPEG if spec.pixels.startswith("yuvj") else ColorRange.MPEG
    codec.sample_aspect_ratio = spec.aspect
    codec.gop_size = 8
    codec.bit_rate = 0 if spec.codec in MAKERS else 8_000_000
    if spec.times:
        codec.time_base = Fraction(1, 1000)
    if maker == "libsvtav1":
        with unprivileged():
            codec.open()
    if spec.turn or spec.mirrored:
        video.set_display_rotation(spec.turn, hflip=spec.mirrored)
    return video


def _video_packets(video: av.VideoStream, frames: list[np.ndarray], spec: ClipSpec) -> list[av.Packet]:
    packets = []
    for number, frame in enumerate(frames):
        picture = _picture(frame, spec)
        picture.time_base = Fraction(1, 1000) if spec.times else 1 / spec.rate
        picture.pts = round(spec.times[number] * 1000) if spec.times else number
        packets += video.encode(picture)
    return packets + video.encode()


def _picture(frame: np.ndarray, spec: ClipSpec) -> av.VideoFrame:
    if frame.dtype == np.uint16:  # already in the signal of the file: (H, W, 3) RGB of 16 bits
        picture = av.VideoFrame.from_ndarray(frame, format="rgb48le")
    else:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    matrix = {1: Colorspace.ITU709, 9: Colorspace.BT2020}.get(spec.color_space[2], Colorspace.ITU601)
    full = spec.pixels.startswith("yuvj")
    return picture.reformat(
        format=spec.pixels,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        interpolation=EXACT,
        threads=1,
    )


def _audio_packets(file: av.container.OutputContainer, spec: ClipSpec, seconds: float) -> list[av.Packet]:
    rate = 48000
    audio = file.add_stream(spec.audio, rate=rate, layout="stereo", options={"strict": "experimental"})
    audio.metadata["language"] = "deu"
    count = round(rate * seconds)
    tone = np.sin(np.arange(count) * 2 * np.pi * 440 / rate)[None].repeat(2, 0).astype(np.float32) / 2
    packets = []
    resampler = av.AudioResampler(format=audio.format, layout="stereo", rate=rate, frame_size=audio.frame_size or 1024)
    sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
    sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
    for part in [*resampler.resample(sound), *resampler.resample(None)]:
        packets += audio.encode(part)
    return packets + audio.encode()


def audio_only(path: Path) -> Path:
    """A file with audio and no video."""
    with av.open(str(path), "w") as file:
        for packet in _audio_packets(file, ClipSpec(audio="aac"), 1.0):
            file.mux(packet)
    return path


def vp9_packet(width: int, height: int) -> bytes:
    """A keyframe of 64x64 that says it is `width` x `height`."""
    codec = av.CodecContext.create("libvpx-vp9", "w")
    codec.width = codec.height = 64
    codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(corners(64, 64), format="rgb24").reformat(format="yuv420p")
    frame.pts = 0
    packets = [*codec.encode(frame), *codec.encode(None)]
    data = int.from_bytes(bytes(packets[0]))
    size = ((width - 1) << 16) | (height - 1)
    below = len(bytes(packets[0])) * 8 - 36 - 32  # the size follows 36 bits of flags, sync code and color
    data = data & ~(0xFFFFFFFF << below) | size << below
    return data.to_bytes(len(bytes(packets[0])))


def bomb(path: Path, width: int, height: int, header_size: tuple[int, int] | None = None) -> Path:
    """A WebM of a few hundred bytes whose picture is `width` x `height`; its header may say another size."""
    header = header_size or (width, height)
    with av.open(str(path), "w") as file:
        video = file.add_mux_stream("vp9", rate=10, width=header[0], height=header[1])
        sizes = [header, (width, height)] if header_size else [(width, height)]
        for number, size in enumerate(sizes):
            packet = av.Packet(vp9_packet(*size))
            packet.stream, packet.pts, packet.dts = video, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 10), True
            file.mux(packet)
    return path
