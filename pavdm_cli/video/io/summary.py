"""What a video file is, as people and scripts are told: picture, length, colour, sound and other tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Facts = dict[str, Any]
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 11: "dci-p3"} | {
    12: "display-p3"
}  # numbers of ITU-T H.273; 2 says nothing
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 8: "linear", 13: "srgb", 14: "bt2020-10"} | {
    15: "bt2020-12",
    16: "pq",
    18: "hlg",
}
MATRICES = {0: "rgb", 1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020-cl"}


def describe_video(info: VideoInfo) -> Facts:
    """All that is told of a video, in JSON's types. Raises: InputError."""
    with open_input(info.path, info.limits) as source:
        names = source.format.name.split(",")
        tracks = [_track(stream) for stream in source.streams]
        sound = [_sound(stream, source) for stream in source.streams.audio]
    return {
        "container": suffix if (suffix := info.path.suffix[1:].lower()) in names else names[0],
        "bytes": info.path.stat().st_size,
        "seconds": round(float(info.duration), 3),
        "frames": info.frames,
        "rate": str(info.rate),
        "fps": round(float(info.rate), 3),
        "variable_rate": info.variable,
        "width": info.width,
        "height": info.height,
        "sample_aspect": str(info.sample_aspect),
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "bits": info.bits,
        "colour": _colour(info.color_space, info.hdr),
        "rotation": _rotation(info),
        "audio": sound,
        "subtitles": [track for track in tracks if track["kind"] == "subtitle"],
        "other_tracks": [track for track in tracks if track["kind"] not in ("audio", "subtitle")][1:],
    }


def summary_rows(facts: Facts) -> list[tuple[str, str]]:
    """The same, a name and a line for each."""
    rate = f"{facts['fps']:g} frames/s{', variable' if facts['variable_rate'] else ''}"
    length = f"{clock(facts['seconds'])}, {facts['frames']} frames"
    aspect = "" if facts["sample_aspect"] == "1" else f", pixels {facts['sample_aspect'].replace('/', ':')}"
    picture = f"{facts['codec']}, {facts['width']}x{facts['height']}{aspect}, {rate}"
    colour = [f"{name} {value}" for name, value in facts["colour"].items() if value]
    rows = [
        ("container", f"{facts['container']}, {facts['bytes'] / 1e6:.3f} MB"),
        ("length", length),
        ("picture", picture),
        ("pixels", f"{facts['pixel_format']}, {facts['bits']} bits per colour"),
        ("colour", ", ".join(colour)),
    ]
    rows += [("rotation", facts["rotation"])] if facts["rotation"] else []
    rows += [("sound", _sound_line(track)) for track in facts["audio"]] or [("sound", "none")]
    rows += [("subtitles", _words(track, "codec", "language", "title")) for track in facts["subtitles"]]
    return rows + [("other track", _words(track, "kind", "codec", "title")) for track in facts["other_tracks"]]


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS, to the tenth."""
    tenths = round(Fraction(seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}.{rest % 10}"


def _track(stream: Stream) -> Facts:
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else None
    kind = "subtitle" if isinstance(stream, SubtitleStream) else stream.type
    return {"kind": kind, "codec": codec, **_tags(stream.metadata)}


def _sound(stream: AudioStream, source: InputContainer) -> Facts:
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if seconds is None and source.duration is not None:
        seconds = source.duration / 1e6
    return {
        "codec": _track(stream)["codec"],
        "sample_rate": stream.sample_rate,
        "channels": stream.channels,
        "layout": stream.layout.name,
        "seconds": None if seconds is None else round(seconds, 3),
        **_tags(stream.metadata),
    }


def _tags(metadata: Mapping[str, str]) -> dict[str, str | None]:
    handler = metadata.get("handler_name", "")  # MP4 has no other title; muxers write "SoundHandler"
    title = metadata.get("title") or ("" if handler.endswith("Handler") else handler)
    return {"language": metadata.get("language"), "title": title or None}


def _colour(color_space: ColorSpace, hdr: str) -> dict[str, str]:
    """The tags by name; empty where the file says nothing."""
    return {
        "primaries": PRIMARIES.get(color_space.primaries, ""),
        "transfer": TRANSFERS.get(color_space.transfer, ""),
        "matrix": MATRICES.get(color_space.matrix, ""),
        "range": "full" if color_space.full_range else "limited",
        "hdr": hdr,
    }


def _rotation(info: VideoInfo) -> str:
    """How a player turns the stored picture, or nothing; sizes are those of the picture as it is shown."""
    if info.orientation == ROTATIONS[0]:
        return ""
    if info.orientation in ROTATIONS:
        return f"{90 * ROTATIONS.index(info.orientation)} degrees counter-clockwise"
    return "mirrored, and turned by a quarter" if info.orientation.turned else "mirrored"


def _sound_line(track: Facts) -> str:
    shown = {**track, "sample_rate": f"{track['sample_rate']} Hz"}
    return _words(shown, "codec", "sample_rate", "layout", "language", "title")


def _words(track: Facts, *names: str) -> str:
    values: Sequence[Any] = [track[name] for name in names]
    return ", ".join(str(value) for value in values if value and value != "und")
