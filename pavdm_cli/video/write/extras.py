"""What a video file holds in addition to video and audio: tags, chapters, subtitles, covers, attachments, time code."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import OutputContainer
from av.stream import AttachmentStream, Stream

from pavdm_cli.video.stream_tags import stream_title
from pavdm_cli.video.write.mp4_cover import append_covers

COVER_FORMATS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}  # by first bytes
SPARSE_STREAMS = {"max_interleave_delta": "1000000"}  # microseconds that video is buffered for the next subtitle


@dataclass(slots=True)
class Extras:
    """What is copied to one output file, and descriptions of what is dropped."""

    suffix: str
    offset: Fraction  # seconds that all times are earlier in the output
    tags: dict[str, str] = field(default_factory=dict)
    chapters: list[Any] = field(default_factory=list)
    video: Stream | None = None  # whose language, title and disposition are copied
    subtitles: list[Stream] = field(default_factory=list)
    attachments: list[AttachmentStream] = field(default_factory=list)
    covers: list[bytes] = field(default_factory=list)
    timecode: str = ""
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_to(self, container: OutputContainer) -> dict[int, Stream]:
        """Add everything to a new file, after its video stream; returns subtitle streams by input index."""
        container.metadata.update(self.tags)
        container.set_chapters(self.chapters)
        video = container.streams.video[0]
        if self.video is not None:
            copy_stream_tags(self.video, video)
        if self.timecode:
            video.metadata["timecode"] = self.timecode
            container.options.update({"write_tmcd": "1"} if self.suffix == ".mp4" else {})
        container.options.update(SPARSE_STREAMS if self.subtitles else {})
        subtitles = {}
        for stream in self.subtitles:
            subtitles[stream.index] = container.add_stream_from_template(stream)
            copy_stream_tags(stream, subtitles[stream.index])
        if self.suffix == ".mkv":
            self._add_attachments(container)
        return subtitles

    def finish_file(self, path: Path) -> None:
        """Add what the muxer cannot write to the closed file."""
        if self.covers and self.suffix == ".mp4":
            append_covers(path, self.covers)

    def _add_attachments(self, container: OutputContainer) -> None:
        for number, cover in enumerate(self.covers):
            image_format = detect_cover_format(cover)
            name = f"cover{number or ''}.{'jpg' if image_format == 'jpeg' else image_format}"  # players look for it
            container.add_attachment(name, f"image/{image_format}", cover)
        for attachment in self.attachments:
            name = attachment.metadata.get("filename", "attachment")
            container.add_attachment(name, attachment.mimetype or "application/octet-stream", bytes(attachment.data))


def copy_stream_tags(source: Stream, target: Stream) -> None:
    """Copy language, title and disposition."""
    tags, title = {key.lower(): value for key, value in source.metadata.items()}, stream_title(source.metadata)
    target.metadata.update({"language": tags["language"]} if "language" in tags else {})
    target.metadata.update({"title": title} if title else {})
    target.disposition = source.disposition


def detect_cover_format(data: bytes) -> str:
    """png, jpeg, or empty for formats that not all players support."""
    return next((name for magic, name in COVER_FORMATS.items() if data.startswith(magic)), "")
