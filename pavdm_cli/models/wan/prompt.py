"""Prompts as Wan's captions were cleaned."""

from __future__ import annotations

import html
import re

from pavdm_cli.runtime.optional_imports import import_library

WHITE_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities twice, and collapse white space. Raises: ModelError."""
    valid_text = import_library("ftfy").fix_text(text)
    return WHITE_SPACE.sub(" ", _unescape(_unescape(valid_text)).strip()).strip()


def _unescape(text: str) -> str:
    """Resolve HTML entities; unchanged if one has more digits than Python converts."""
    try:
        return html.unescape(text)
    except ValueError:
        return text
