"""Describe a video file for people and scripts: format, duration, colors, audio and other streams."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from pavdm_cli.video.color_space import ColorSpace
from pavdm_cli.video.io.info import VideoInfo
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.io.orientation import ROTATIONS
from pavdm_cli.video.stream_tags import stream_title

Description = dict[str, Any]
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 11: "dci-p3"} | {
    12: "display-p3"
}  # ITU-T H.273; 2 is unspecified
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 8: "linear", 13: "srgb", 14: "bt2020-10"} | {
    15: "bt2020-12",
    16: "pq",
    18: "hlg",
}
MATRICES = {0: "rgb", 1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020-cl"}


def describe_video(info: VideoInfo) -> Description:
    """A JSON-serializable description. Raises: InputError."""
    with open_input(info.path, info.limits) as source:
        formats = source.format.name.split(",")
        streams = [_describe_stream(stream) for stream in source.streams]
        audio = [_describe_audio(stream, source) for stream in source.streams.audio]
    return {
        "container": suffix if (suffix := info.path.suffix[1:].lower()) in formats else formats[0],
        "bytes": info.path.stat().st_size,
        "seconds": round(float(info.duration), 3),
        "frames": info.frames,
        "frame_rate": str(info.rate),
        "fps": round(float(info.rate), 3),
        "variable_frame_rate": info.variable_frame_rate,
        "width": info.width,
        "height": info.height,
        "sample_aspect_ratio": str(info.sample_aspect_ratio),
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "bit_depth": info.bit_depth,
        "color_space": _describe_color_space(info.color_space, info.hdr),
        "rotation": _describe_rotation(info),
        "audio": audio,
        "subtitles": [stream for stream in streams if stream["kind"] == "subtitle"],
        "other_streams": [stream for stream in streams if stream["kind"] not in ("audio", "subtitle")][1:],
    }


def summary_rows(video: Description) -> list[tuple[str, str]]:
    """Rows (label, text) of what `describe_video` returns."""
    rate = f"{video['fps']:g} fps{' (variable)' if video['variable_frame_rate'] else ''}"
    duration = f"{format_duration(video['seconds'])}, {video['frames']} frames"
    aspect = video["sample_aspect_ratio"]
    pixels = "" if aspect == "1" else f", pixels {aspect.replace('/', ':')}"
    color_space = [f"{name} {value}" for name, value in video["color_space"].items() if value]
    rows = [
        ("container", f"{video['container']}, {video['bytes'] / 1e6:.3f} MB"),
        ("duration", duration),
        ("video", f"{video['codec']}, {video['width']}x{video['height']}{pixels}, {rate}"),
        ("pixels", f"{video['pixel_format']}, {video['bit_depth']} bits per channel"),
        ("color", ", ".join(color_space)),
    ]
    rows += [("rotation", video["rotation"])] if video["rotation"] else []
    rows += [("audio", _audio_row(stream)) for stream in video["audio"]] or [("audio", "none")]
    rows += [("subtitles", _join_fields(stream, "codec", "language", "title")) for stream in video["subtitles"]]
    return rows + [("other", _join_fields(stream, "kind", "codec", "title")) for stream in video["other_streams"]]


def format_duration(seconds: float) -> str:
    """'4.0 s', or H:MM:SS.s from a minute on."""
    tenths = round(Fraction(seconds) * 10)
    if tenths < 600:
        return f"{tenths // 10}.{tenths % 10} s"
    minutes, tenths_left = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{tenths_left // 10:02}.{tenths_left % 10}"


def _describe_stream(stream: Stream) -> Description:
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else None
    kind = "subtitle" if isinstance(stream, SubtitleStream) else stream.type
    return {"kind": kind, "codec": codec, **_language_and_title(stream.metadata)}


def _describe_audio(stream: AudioStream, source: InputContainer) -> Description:
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if seconds is None and source.duration is not None:
        seconds = source.duration / 1e6
    is_known = stream.codec_context is not None
    return {
        "codec": _describe_stream(stream)["codec"],
        "sample_rate": stream.sample_rate if is_known else None,
        "channels": stream.channels if is_known else None,
        "layout": stream.layout.name if is_known else None,
        "seconds": None if seconds is None else round(seconds, 3),
        **_language_and_title(stream.metadata),
    }


def _language_and_title(metadata: Mapping[str, str]) -> dict[str, str | None]:
    return {"language": metadata.get("language"), "title": stream_title(metadata) or None}


def _describe_color_space(color_space: ColorSpace, hdr: str) -> dict[str, str]:
    """Names of the tags; empty where unspecified."""
    return {
        "primaries": PRIMARIES.get(color_space.primaries, ""),
        "transfer": TRANSFERS.get(color_space.transfer, ""),
        "matrix": MATRICES.get(color_space.matrix, ""),
        "range": "full" if color_space.full_range else "limited",
        "hdr": hdr,
    }


def _describe_rotation(info: VideoInfo) -> str:
    """How players rotate the stored frames (other fields describe the rotated video); empty if they do not."""
    if info.orientation == ROTATIONS[0]:
        return ""
    if info.orientation in ROTATIONS:
        return f"{90 * ROTATIONS.index(info.orientation)} degrees counter-clockwise"
    return "mirrored and rotated by 90 degrees" if info.orientation.transposed else "mirrored"


def _audio_row(stream: Description) -> str:
    stream = {**stream, "sample_rate": f"{stream['sample_rate']} Hz"}
    return _join_fields(stream, "codec", "sample_rate", "layout", "language", "title")


def _join_fields(stream: Description, *names: str) -> str:
    return ", ".join(str(stream[name]) for name in names if stream[name] and stream[name] != "und")
