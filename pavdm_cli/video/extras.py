"""What a video file holds beside picture and sound: names, languages and roles of streams."""

from __future__ import annotations

from av.stream import Stream


def describe(old: Stream, new: Stream) -> None:
    """Give a stream of the output the language, title and role of the input's."""
    tags = {key.lower(): value for key, value in old.metadata.items()}
    title = tags.get("title") or tags.get("name")  # QuickTime calls it a name
    new.metadata.update({"language": tags["language"]} if "language" in tags else {})
    new.metadata.update({"title": title} if title else {})
    new.disposition = old.disposition
