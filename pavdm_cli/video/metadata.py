"""Generation parameters, stored as JSON in the file's comment tag, which every container supports."""

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
    """The comment tag's text: ASCII, which no container re-encodes."""
    return json.dumps(dict(metadata), separators=(",", ":")) if metadata else ""


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Parse a video's comment tag; None if it is not a JSON object.

    Raises: InputError if the file cannot be read, or the JSON is nested too deeply or invalid (NaN, lone surrogates).
    """
    with open_input(path) as source:
        tags = {key.lower(): value for key, value in source.metadata.items()}  # Matroska upper-cases keys
    try:
        value = parse_json(tags.get("comment", ""))
    except NotJSONError:
        return None
    except InvalidError as error:
        hint = "its comment may be damaged; `pavdm extend` treats it as a video from another source"
        raise InputError(f"{os.fspath(path)} carries metadata that cannot be read: {error}", hint) from None
    return value if isinstance(value, dict) else None
