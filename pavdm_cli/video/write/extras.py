"""What a video file holds beside picture and sound: tags, chapters, subtitles, covers, attachments, a time code."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import OutputContainer
from av.stream import AttachmentStream, Stream

from pavdm_cli.video.write.mp4_cover import append_covers

IMAGES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
SPARSE = {"max_interleave_delta": "1000000"}  # microseconds that pictures wait in memory for the next subtitle


@dataclass(slots=True)
class Extras:
    """What is carried over to one output file, and what is lost, one line each."""

    suffix: str
    offset: Fraction  # seconds that everything is earlier in the output
    tags: dict[str, str] = field(default_factory=dict)
    chapters: list[Any] = field(default_factory=list)
    picture: Stream | None = None
    subtitles: list[Stream] = field(default_factory=list)
    attachments: list[AttachmentStream] = field(default_factory=list)
    covers: list[bytes] = field(default_factory=list)
    timecode: str = ""
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attach(self, container: OutputContainer) -> dict[int, Stream]:
        """Add it to a new file, which has its picture already; gives the new subtitle streams by the old's index."""
        container.metadata.update(self.tags)
        container.set_chapters(self.chapters)
        picture = container.streams.video[0]
        if self.picture is not None:
            describe(self.picture, picture)
        if self.timecode:
            picture.metadata["timecode"] = self.timecode
            container.options.update({"write_tmcd": "1"} if self.suffix == ".mp4" else {})
        container.options.update(SPARSE if self.subtitles else {})
        added = {}
        for old in self.subtitles:
            added[old.index] = container.add_stream_from_template(old)
            describe(old, added[old.index])
        if self.suffix == ".mkv":
            self._attach_files(container)
        return added

    def finish(self, path: Path) -> None:
        """Add to the finished file what its muxer cannot."""
        if self.covers and self.suffix == ".mp4":
            append_covers(path, self.covers)

    def _attach_files(self, container: OutputContainer) -> None:
        for number, cover in enumerate(self.covers):
            kind = image_kind(cover)
            name = f"cover{number or ''}.{'jpg' if kind == 'jpeg' else kind}"  # by this name players know it
            container.add_attachment(name, f"image/{kind}", cover)
        for old in self.attachments:
            name = old.metadata.get("filename", "attachment")
            container.add_attachment(name, old.mimetype or "application/octet-stream", bytes(old.data))


def describe(old: Stream, new: Stream) -> None:
    """Give a stream of the output the language, title and role of the input's."""
    tags = {key.lower(): value for key, value in old.metadata.items()}
    title = tags.get("title") or tags.get("name")  # QuickTime calls it a name
    new.metadata.update({"language": tags["language"]} if "language" in tags else {})
    new.metadata.update({"title": title} if title else {})
    new.disposition = old.disposition


def image_kind(data: bytes) -> str:
    """Which image a cover is: png, jpeg, or nothing for what not every player shows."""
    return next((kind for mark, kind in IMAGES.items() if data.startswith(mark)), "")
