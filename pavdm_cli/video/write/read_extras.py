"""Collect tags, chapters, subtitles, covers, attachments and time code that another container can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from pavdm_cli.video.audio.transcode import can_mux
from pavdm_cli.video.write.extras import Extras, detect_cover_format

# Tags about the file itself rather than its content.
TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration", "timecode"}
COMMENT, ORIGINAL_COMMENT = "comment", "original_comment"
TIMECODE_RATES = (24, 25, 30, 48, 50, 60, 100, 120)  # frames per second that time codes support
DROP_FRAME_RATES = (30, 60)


def read_extras(source: InputContainer, video: Stream, rate: Fraction, suffix: str, offset: Fraction) -> Extras:
    """What is copied to a file with this suffix; every loss is listed in `dropped`."""
    extras = Extras(suffix, offset, video=video)
    if suffix == ".gif":
        extras.dropped = _list_all(source, video)
        return extras
    extras.chapters = shift_chapters(source.chapters(), offset)
    _read_tags(source, extras)
    _read_timecode(source, rate, extras)
    for stream in source.streams:
        if stream.type != "audio" and stream.index != video.index:
            _read_stream(source, stream, extras)
    return extras


def _read_stream(source: InputContainer, stream: Stream, extras: Extras) -> None:
    if stream.disposition & Disposition.attached_pic:
        _read_cover(source, stream, extras)
    elif isinstance(stream, AttachmentStream):
        if extras.suffix == ".mkv":
            extras.attachments.append(stream)
        else:
            extras.dropped.append(f"the attachment {stream.metadata.get('filename', 'without a name')}")
    elif stream.type == "subtitle" and can_mux(stream, extras.suffix):
        extras.subtitles.append(stream)
    elif not _is_regenerated(stream, extras):
        extras.dropped.append(_label(stream))


def _is_regenerated(stream: Stream, extras: Extras) -> bool:
    """Whether it is a data track in which MP4 stores chapters or the time code: the muxer writes a new one."""
    has_chapters = bool(extras.chapters) and stream.metadata.get("handler_name") == "SubtitleHandler"
    return stream.type == "data" and (has_chapters or "timecode" in stream.metadata)


def _read_cover(source: InputContainer, stream: Stream, extras: Extras) -> None:
    packet = next((packet for packet in source.demux(stream) if packet.size), None)
    cover = b"" if packet is None else bytes(packet)
    if detect_cover_format(cover) and extras.suffix in (".mp4", ".mkv"):
        extras.covers.append(cover)
    else:
        extras.dropped.append("the cover")


def _read_tags(source: InputContainer, extras: Extras) -> None:
    tags = {key.lower(): value for key, value in source.metadata.items()}
    extras.tags = {key: value for key, value in tags.items() if key not in {COMMENT, *TECHNICAL} and value}
    comment = tags.get(COMMENT, "")
    if comment and not _is_pavdm_metadata(comment):
        extras.tags[ORIGINAL_COMMENT] = comment
        extras.notes.append(f"the input's comment is stored as the tag {ORIGINAL_COMMENT}")


def _is_pavdm_metadata(comment: str) -> bool:
    try:
        return "pavdm" in json.loads(comment)
    except (ValueError, TypeError, RecursionError):
        return False


def _read_timecode(source: InputContainer, rate: Fraction, extras: Extras) -> None:
    tags = [part.metadata for part in (source, *source.streams)]
    timecode = next((value for tag in tags for key, value in tag.items() if key.lower() == "timecode"), "")
    rates = DROP_FRAME_RATES if ";" in timecode else TIMECODE_RATES
    is_supported = round(rate) in rates and abs(rate - round(rate)) < Fraction(1, 9)
    if timecode and (is_supported or extras.suffix != ".mp4"):
        extras.timecode = timecode
    elif timecode:
        extras.dropped.append(f"the time code {timecode}")


def shift_chapters(chapters: Sequence[Any], offset: Fraction) -> list[dict[str, Any]]:
    """Chapters in milliseconds, `offset` seconds earlier unless they already count from the first frame."""
    times = [
        [chapter[name] * (chapter["time_base"] or Fraction(1, 1000)) for name in ("start", "end")]
        for chapter in chapters
    ]
    shift = offset if any(end > offset for _, end in times) else 0
    milliseconds = [[max(0, round((time - shift) * 1000)) for time in pair] for pair in times]
    return [
        {**chapter, "start": start, "end": end, "time_base": Fraction(1, 1000)}
        for chapter, (start, end) in zip(chapters, milliseconds, strict=True)
        if end > start
    ]


def _list_all(source: InputContainer, video: Stream) -> list[str]:
    contents = {"chapters": source.chapters(), "tags": set(source.metadata) - TECHNICAL - {COMMENT}}
    mp4_chapters = Extras(".gif", Fraction(0), chapters=source.chapters())
    streams = [stream for stream in source.streams if stream.type != "audio" and stream.index != video.index]
    labels = [_label(stream) for stream in streams if not _is_regenerated(stream, mp4_chapters)]
    return [*(name for name, values in contents.items() if values), *labels]


def _label(stream: Stream) -> str:
    """A stream's description in a note."""
    if stream.disposition & Disposition.attached_pic:
        return "the cover"
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    language = stream.metadata.get("language", "und")
    suffix = "" if language == "und" else f" ({language})"
    if stream.type == "subtitle":
        return f"{codec} subtitles{suffix}"
    return f"a second video stream ({codec})" if stream.type == "video" else f"a {stream.type} track{suffix}"


def dropped_note(losses: Sequence[str]) -> list[str]:
    """One line that lists all losses, or nothing."""
    return [f"dropped: {', '.join(dict.fromkeys(losses))}"] if losses else []
