"""Prompts as Wan's captions were cleaned."""

from __future__ import annotations

import html
import re

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.optional_imports import import_library

WHITE_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Broken Unicode repaired, HTML entities resolved twice, white space joined. Raises: ModelError."""
    repaired = import_library("ftfy").fix_text(text)
    return WHITE_SPACE.sub(" ", _unescape(_unescape(repaired)).strip()).strip()


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that says nothing. Raises: UsageError."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')


def _unescape(text: str) -> str:
    """The characters that entities stand for; unchanged where one has a number too long for Python to read."""
    try:
        return html.unescape(text)
    except ValueError:
        return text
