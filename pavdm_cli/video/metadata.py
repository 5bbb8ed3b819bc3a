"""What made a video, kept in the file's comment tag as one JSON object: it survives in every container."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pavdm_cli.errors import InputError
from pavdm_cli.runtime.untrusted import InvalidError, NotJSONError, parse_json
from pavdm_cli.video.io.input import open_input

Metadata = Mapping[str, Any]


def to_comment(metadata: Metadata | None) -> str:
    """The text of the comment tag; ASCII, so that no container can spoil it."""
    return json.dumps(dict(metadata), separators=(",", ":")) if metadata else ""


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `to_comment` stored in a video, or None where its comment is none of ours.

    Raises: InputError, also for a comment in JSON that is nested too deeply or holds what JSON does not allow.
    """
    with open_input(path) as source:
        tags = {key.lower(): value for key, value in source.metadata.items()}  # Matroska writes them in capitals
    try:
        value = parse_json(tags.get("comment", ""))
    except NotJSONError:
        return None
    except InvalidError as error:
        hint = "its comment may be damaged; `pavdm extend` treats it as a video from another source"
        raise InputError(f"{os.fspath(path)} carries metadata that cannot be read: {error}", hint) from None
    return value if isinstance(value, dict) else None
