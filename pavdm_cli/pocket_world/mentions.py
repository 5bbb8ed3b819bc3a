"""Finds what a prompt mentions: known phrases, in any inflection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pavdm_cli.pocket_world.synonyms import LOOKING, NEAREST_COLORS, SYNONYMS
from pavdm_cli.pocket_world.vocabulary import PHRASES

BREAKS = frozenset(",.;:!?()")  # boundaries of clauses
ARTICLES = frozenset(("a", "an", "the", "any"))
REACH = 6  # maximum words from "camera" to its direction, or from a color to its noun
NAMES = {"object": "object", "color": "color", "motion": "motion", "terrain": "place", "time of day": "time of day"}
NAMES |= {"weather": "weather", "camera": "camera movement"}
KINDS = tuple(NAMES)  # in the order of a caption
NOUNS = ("object", "terrain", "time of day")  # that a color can belong to
DRAWN = KINDS[:-2]  # filled in from the seed where a prompt leaves them out; weather is clear then, the camera still


@dataclass(frozen=True, slots=True)
class Mention:
    """One thing that a prompt mentions: tokens `start` to `end`, their meaning, and the phrase of captions for it."""

    kind: str
    meaning: str
    phrase: str
    typed: str
    start: int
    end: int


def tokenize(text: str) -> list[str]:
    """Lower-case words and punctuation; possessive endings are dropped, and "isn't" is "is not"."""
    text = re.sub(r"n['’]t\b", " not", re.sub(r"['’]s\b", "", text.lower()))
    return re.findall(r"[^\W_]+|[,.;:!?()]", text)


@cache
def known_phrases() -> dict[tuple[str, ...], tuple[str, str, str]]:
    """Every known phrase, as words, to (kind, meaning, phrase of captions)."""
    by_words = {}
    for kind in KINDS[:-1]:  # the camera has its own rules
        for meaning, phrases in PHRASES[kind].items():
            for phrase in phrases:
                synonyms = SYNONYMS.get(kind, {}).get(phrase, "")
                for words in filter(None, (phrase, *synonyms.split(", "))):
                    by_words[tuple(words.split())] = (kind, meaning, phrase)
    for color, names in NEAREST_COLORS.items():
        by_words |= {(name,): ("color", color, color) for name in names.split(", ")}
    return by_words


@cache
def longest_phrases() -> dict[str, int]:
    """The first words of phrases, to the number of words in the longest."""
    longest: dict[str, int] = {}
    for words in known_phrases():
        longest[words[0]] = max(len(words), longest.get(words[0], 0))
    return longest


@lru_cache(maxsize=1024)
def base_forms(word: str) -> tuple[str, ...]:
    """A word and its possible base forms: boats, bounces, circled, hopping."""
    forms = [word]
    for ending, shortest in (("s", 3), ("es", 4), ("ed", 5), ("ing", 5)):
        if word.endswith(ending) and len(word) > shortest and not word.endswith("ss"):
            stem = word.removesuffix(ending)
            forms += [stem, stem + "e"] if ending != "s" else [stem]
            forms += [stem[:-1]] if stem[-2:-1] == stem[-1:] else []
            forms += [stem[:-1] + "y"] if stem.endswith("i") else []
    return tuple(forms)


def find_mentions(tokens: Sequence[str], used: set[int]) -> Iterator[Mention]:
    """The longest known phrase at every position."""
    index = 0
    while index < len(tokens):
        mention = None if index in used else longest_mention(tokens, index)
        if mention:
            yield mention
        index = mention.end if mention else index + 1


def longest_mention(tokens: Sequence[str], start: int) -> Mention | None:
    """The longest known phrase that starts at a token, possibly inflected."""
    if tokens[start].startswith("see") and (tokens[start] != "see" or tokens[max(0, start - 1)] in LOOKING):
        return None
    firsts = [form for form in base_forms(tokens[start]) if form in longest_phrases()]
    longest = max((longest_phrases()[form] for form in firsts), default=0)
    for end in range(min(len(tokens), start + longest), start, -1):
        for first in firsts:
            for last in base_forms(tokens[end - 1]):
                words = (first, *tokens[start + 1 : end - 1], last) if end - start > 1 else (first,)
                if words in known_phrases():
                    return Mention(*known_phrases()[words], " ".join(tokens[start:end]), start, end)
    return None
