"""Finds what a video file holds beside picture and sound, and which of it another kind of file can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from pavdm_cli.video.audio.transcode import holds
from pavdm_cli.video.write.extras import Extras, image_kind

# Tags that tell of a file, not of what it shows.
TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration", "timecode"}
COMMENT, OLD_COMMENT = "comment", "original_comment"
WHOLE_RATES = (24, 25, 30, 48, 50, 60, 100, 120)  # frames per second that time codes count
DROPPING_RATES = (30, 60)  # those that may leave out numbers


def read_extras(source: InputContainer, picture: Stream, rate: Fraction, suffix: str, offset: Fraction) -> Extras:
    """All that is carried over to a file of another kind, and a note that names each loss."""
    extras = Extras(suffix, offset, picture=picture)
    if suffix == ".gif":
        extras.lost = _everything(source, picture)
        return extras
    extras.chapters = moved(source.chapters(), offset)
    _read_tags(source, extras)
    _read_timecode(source, rate, extras)
    for stream in source.streams:
        if stream.type != "audio" and stream.index != picture.index:
            _read_stream(source, stream, extras)
    return extras


def _read_stream(source: InputContainer, stream: Stream, extras: Extras) -> None:
    if stream.disposition & Disposition.attached_pic:
        _read_cover(source, stream, extras)
    elif isinstance(stream, AttachmentStream):
        if extras.suffix == ".mkv":
            extras.attachments.append(stream)
        else:
            extras.lost.append(f"the attachment {stream.metadata.get('filename', 'without a name')}")
    elif stream.type == "subtitle" and holds(stream, extras.suffix):
        extras.subtitles.append(stream)
    elif not _is_kept_otherwise(stream, extras):
        extras.lost.append(_named(stream))


def _is_kept_otherwise(stream: Stream, extras: Extras) -> bool:
    """Whether a data track is the one that MP4 keeps chapters or the time code in."""
    of_chapters = bool(extras.chapters) and stream.metadata.get("handler_name") == "SubtitleHandler"
    return stream.type == "data" and (of_chapters or "timecode" in stream.metadata)


def _read_cover(source: InputContainer, stream: Stream, extras: Extras) -> None:
    packet = next((packet for packet in source.demux(stream) if packet.size), None)
    cover = b"" if packet is None else bytes(packet)
    if image_kind(cover) and extras.suffix in (".mp4", ".mkv"):
        extras.covers.append(cover)
    else:
        extras.lost.append("the cover")


def _read_tags(source: InputContainer, extras: Extras) -> None:
    tags = {key.lower(): value for key, value in source.metadata.items()}
    extras.tags = {key: value for key, value in tags.items() if key not in {COMMENT, *TECHNICAL} and value}
    comment = tags.get(COMMENT, "")
    if comment and not _is_ours(comment):
        extras.tags[OLD_COMMENT] = comment
        extras.notes.append(f"the input's comment is kept as the tag {OLD_COMMENT}")


def _is_ours(comment: str) -> bool:
    try:
        return "pavdm" in json.loads(comment)
    except (ValueError, TypeError, RecursionError):
        return False


def _read_timecode(source: InputContainer, rate: Fraction, extras: Extras) -> None:
    tags = [one.metadata for one in (source, *source.streams)]
    found = next((value for tag in tags for key, value in tag.items() if key.lower() == "timecode"), "")
    usual = round(rate) in (DROPPING_RATES if ";" in found else WHOLE_RATES) and abs(rate - round(rate)) < Fraction(
        1, 9
    )
    if found and (usual or extras.suffix != ".mp4"):
        extras.timecode = found
    elif found:
        extras.lost.append(f"the time code {found}")


def moved(chapters: Sequence[Any], offset: Fraction) -> list[dict[str, Any]]:
    """Chapters in milliseconds, earlier by the output's offset where that is how they are counted."""
    times = [[one[name] * (one["time_base"] or Fraction(1, 1000)) for name in ("start", "end")] for one in chapters]
    shift = offset if any(end > offset for _, end in times) else 0  # some writers count from the first frame
    pairs = [[max(0, round((time - shift) * 1000)) for time in pair] for pair in times]
    return [
        {**one, "start": start, "end": end, "time_base": Fraction(1, 1000)}
        for one, (start, end) in zip(chapters, pairs, strict=True)
        if end > start
    ]


def _everything(source: InputContainer, picture: Stream) -> list[str]:
    names = {"chapters": source.chapters(), "tags": set(source.metadata) - TECHNICAL - {COMMENT}}
    counted = Extras(".gif", Fraction(0), chapters=source.chapters())
    others = [one for one in source.streams if one.type != "audio" and one.index != picture.index]
    others = [one for one in others if not _is_kept_otherwise(one, counted)]
    return [*(name for name, found in names.items() if found), *map(_named, others)]


def _named(stream: Stream) -> str:
    """What a stream is, for a note."""
    if stream.disposition & Disposition.attached_pic:
        return "the cover"
    codec = stream.codec_context.name if stream.codec_context is not None else "of an unknown kind"
    language = stream.metadata.get("language", "und")
    of = "" if language == "und" else f" ({language})"
    if stream.type == "subtitle":
        return f"{codec} subtitles{of}"
    return f"a second picture ({codec})" if stream.type == "video" else f"a {stream.type} track{of}"


def lost_note(lost: Sequence[str]) -> list[str]:
    """All losses in a line, or nothing."""
    return [f"left out: {', '.join(dict.fromkeys(lost))}"] if lost else []
