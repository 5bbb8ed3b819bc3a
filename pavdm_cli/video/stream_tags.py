"""Titles of streams in the tags of containers."""

from __future__ import annotations

from collections.abc import Mapping

# Handler names of MP4 that muxers write by themselves.
GENERIC_PREFIXES, GENERIC_SUFFIXES = ("Core Media ", "ISO Media file "), ("Handler", "Handle")


def stream_title(metadata: Mapping[str, str]) -> str:
    """The title in a stream's tags, or empty. MP4 has a name (QuickTime's key), and the name of a handler."""
    tags = {key.lower(): value for key, value in metadata.items()}
    handler = tags.get("handler_name", "")
    is_generic = handler.startswith(GENERIC_PREFIXES) or handler.endswith(GENERIC_SUFFIXES)
    return tags.get("title") or tags.get("name") or ("" if is_generic else handler)
