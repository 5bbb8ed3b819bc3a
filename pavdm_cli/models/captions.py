"""Prompts in the form Open-Sora's captions had: lower case, no markup, links, file names or codes; scores as words.

Written from recorded pairs of prompts and what the released code made of them.
"""

from __future__ import annotations

import html
import re
from urllib.parse import unquote_plus

from pavdm_cli.errors import UsageError

PLAIN = str.maketrans(
    dict.fromkeys("‘’‚‛", "'")
    | dict.fromkeys("“”„‟«»`´", '"')
    | dict.fromkeys("‐‑‒–—―−", "-")
    | dict.fromkeys("©®™#{}[]()|\\/*&~^\n\r\t", " ")
)
SITES = r"(?:com|org|net|edu|gov|io|co|ru|uk|de|fr|info|biz|tv|me)"
SUFFIXES = r"(?:png|jpe?g|bmp|webp|gif|tiff?|svg|eps|pdf|apk|mp4|avi|mov|mkv|webm)"
CJK = "\u2e80-\u30ff\u31c0-\u31ff\u3200-\u9fff\uf900-\ufaff\uac00-\ud7af"

LOST = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\n",  # a line end spelt out
        r"<[^<>]*>",
        rf"(?:https?://|www\.)[\w.\-]+(?:/[\w.\-/%~]*)?|\b[\w\-]+(?:\.[\w\-]+)*\.{SITES}\b(?:/[\w.\-/%~]*)?",
        r"@[\w.]+",
        rf"[{CJK}]+",
        r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
        rf"\b[\w\-]+\.{SUFFIXES}\b",
    )
)
WORDS = re.compile(rf"\b(?:(?:free|worldwide) )?(?:shipping|download)\b|\b{SUFFIXES}\b")
WORD = re.compile(r"\b\w+\b")


def clean(text: str) -> str:
    """A prompt as captions were cleaned: twice over, since once uncovers more."""
    return _once(_once(text))


def with_scores(text: str, aesthetic: float | None = None, motion: float | None = None, camera: str = "") -> str:
    """The prompt with each score it does not yet name, as captions name them."""
    scores = (
        ("aesthetic score", None if aesthetic is None else f"{aesthetic:.1f}"),
        ("motion score", None if motion is None else f"{motion:.1f}"),
        ("camera motion", camera or None),
    )
    for name, value in scores:
        text += f" {name}: {value}." if value and f"{name}:" not in text else ""
    return text


def check_prompt(prompt: str) -> list[str]:
    """Refuse a prompt that says nothing. Raises: UsageError."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')
    if not clean(prompt):
        raise UsageError(
            f"nothing is left of {prompt!r} once links, file names and symbols are out", "use English words"
        )
    return []


def _once(text: str) -> str:
    text = html.unescape(html.unescape(unquote_plus(text))).lower()
    for pattern in LOST:
        text = pattern.sub(" ", text)
    text = _parted(text.translate(PLAIN))
    text = WORD.sub(lambda found: "" if _is_code(found[0]) else found[0], text)
    return _spaced(WORDS.sub(" ", text))


def _parted(text: str) -> str:
    """Words joined by hyphens or underscores, apart where there are more than three such marks."""
    return re.sub(r"[-_]", " ", text) if len(re.findall(r"[-_]", text)) > 3 else text


def _is_code(word: str) -> bool:
    """Letters among three digits or more, as in a product's number; years, hours and heights in lines are words."""
    runs = re.findall(r"\d+|\D+", word)
    digits = sum(character.isdigit() for character in word)
    return digits >= 3 and len(runs) > 1 and (word[0].isalpha() or len(runs) > 2)


def _spaced(text: str) -> str:
    text = re.sub(r"\s+([:,;.!?])(?=\s|$)", r"\1", text)
    text = re.sub(r",(?=[^\s\d])", ", ", text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"^[\s'\"_.,\-+]+|[\s'\"_\-+]+$", "", text)
