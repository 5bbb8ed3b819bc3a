"""Prompts in the form of Open-Sora's training captions: cleaned by an ordered list of rules, with scores appended.

The rules are those of DeepFloyd IF, which PixArt and Open-Sora adopted. They are kept even where they lose words that
matter ("4x4", "h264"): otherwise the text encoder would get other text than in training.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_plus

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs

DASHES = (
    "\\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
IMAGES = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
# The length of a host name is limited to 253 characters, so that matching takes linear time.
HOST = r"[a-zA-Z0-9.\-]{1,253}\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"

MAX_MARKUP = 4_000_000  # tags times characters: Python's parser scans the rest again at every unclosed tag


class Rule(NamedTuple):
    """Replaces every match of a pattern."""

    pattern: re.Pattern[str]
    replacement: str


def _rule(pattern: str, replacement: str) -> Rule:
    return Rule(re.compile(pattern), replacement)


LINKS = (
    _rule("<person>", "person"),  # a name that a data set had masked
    _rule(rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{HOST})", ""),  # the scheme of an address, or a host and its path
    _rule(rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{HOST})", ""),  # the same for www:, and hosts joined above
)
SYMBOLS = (
    _rule(r"@\w+\b", ""),  # @name
    _rule("[\u31c0-\u31ff]+", ""),  # CJK strokes, small katakana
    _rule("[\u3200-\u4dbf]+", ""),  # enclosed and squared CJK letters, ideographs A
    _rule("[\u4dc0-\u9fff]+", ""),  # hexagrams, ideographs
    _rule(f"[{DASHES}]+", "-"),  # dashes of any kind, or several
    _rule("[`´«»“”¨]", '"'),  # double quotes
    _rule("[‘’]", "'"),  # single quotes
    _rule("&quot;?", ""),  # an escaped quote
    _rule("&amp", ""),  # an escaped ampersand, its semicolon excepted
    _rule(r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # an IP address
    _rule(r"\d:\d\d\s+$", ""),  # a time at the end, before white space
    _rule(r"\\n", " "),  # a literal backslash-n
    _rule(r"#\d{1,3}\b", ""),  # #1 to #999
    _rule(r"#\d{5,}\b", ""),  # #12345 and longer
    _rule(r"\b\d{6,}\b", ""),  # a number of six digits or more
    _rule(rf"(?<!\S)\S+\.{IMAGES}", ""),  # the name of a file, and all before it in its word
    _rule("[\"']{2,}", '"'),  # quotes in a row
    _rule(r"\.{2,}", " "),  # dots in a row
    _rule(r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),  # marks that say nothing
    _rule(r"(?<!\s)\s+\.\s+", " "),  # a dot by itself
)
JOINT = re.compile("[-_]")
CODES = (
    _rule(r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # an article number, jc6640
    _rule(r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    _rule(r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    _rule(r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),  # a shop's words
    _rule(r"(?:free\s)?download(?:\sfree)?", ""),  # a shop's words
    _rule(r"\bclick\b\s(?:for|on)\s\w+", ""),  # an instruction to the reader
    _rule(rf"\b{IMAGES}(?:\simages?)?", ""),  # the kind of a file
    _rule(r"\bpage\s+\d+\b", ""),  # the number of a page
    _rule(r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*\b", " "),  # letters and digits in turns, j2d1a2a
    _rule(r"\b\d+(?:\.\d*)?[xх×]\d+(?:\.\d*)?\b", ""),  # a size in pixels or inches, 10x20; the second x is Cyrillic
)
SPACING = (
    _rule(r"\b\s+:\s+", ": "),  # a colon by itself belongs to the word before
    _rule(r"(\D[,./])\b", r"\1 "),  # space after a comma, dot or slash, except in numbers
    _rule(r"\s+", " "),  # white space in a row
    _rule(r"^[\"'](.+)[\"']$", r"\1"),  # quotes around everything
    _rule(r"^['_,\-:;]", ""),  # a mark at the beginning
    _rule(r"['_,\-:+]$", ""),  # a mark at the end
    _rule(r"^\.\S+$", ""),  # nothing but a dot and a word
)


def clean(text: str) -> str:
    """Clean a prompt as the captions were: twice, since the first pass uncovers more. Raises: ModelError."""
    return _clean_once(_clean_once(text))


def append_scores(text: str, aesthetic: float | None = None, motion: float | None = None, camera: str = "") -> str:
    """Append each score that the prompt does not contain yet, in the form of the captions."""
    scores = (
        ("aesthetic score", None if aesthetic is None else f"{aesthetic:.1f}"),
        ("motion score", None if motion is None else f"{motion:.1f}"),
        ("camera motion", camera or None),
    )
    for name, value in scores:
        text += f" {name}: {value}." if value and f"{name}:" not in text else ""
    return text


def check_prompt(prompt: str) -> None:
    """Reject a prompt that is empty once it is cleaned. Raises: UsageError."""
    if not clean(prompt):
        raise UsageError(
            f"the prompt {prompt!r} is empty after removing links, file names and symbols", "use English words"
        )


def _clean_once(text: str) -> str:
    text = unquote_plus(text).strip().lower()
    text = _without_markup(_replace(LINKS, text))
    text = _split_compounds(_replace(SYMBOLS, text))
    text = _unescape(_unescape(import_library("ftfy").fix_text(text)))
    return _replace((*CODES, *SPACING), text).strip()


def _replace(rules: Iterable[Rule], text: str) -> str:
    for rule in rules:
        text = rule.pattern.sub(rule.replacement, text)
    return text


def _without_markup(text: str) -> str:
    """The text without HTML tags; unchanged if the parser fails or would take seconds."""
    if text.count("<") * len(text) > MAX_MARKUP:
        return text
    soup = import_library("bs4")
    try:
        with suppress_logs():  # bs4 warns about text that looks like a path or an address
            return str(soup.BeautifulSoup(text, "html.parser").text)
    except (soup.ParserRejectedMarkup, ValueError, AssertionError, RecursionError):
        return text


def _split_compounds(text: str) -> str:
    """Replace hyphens and underscores with spaces if there are more than three: this-is-my-cute-cat."""
    return JOINT.sub(" ", text) if len(JOINT.findall(text)) > 3 else text


def _unescape(text: str) -> str:
    """Resolve HTML entities; unchanged if one has more digits than Python converts."""
    try:
        return html.unescape(text)
    except ValueError:
        return text
