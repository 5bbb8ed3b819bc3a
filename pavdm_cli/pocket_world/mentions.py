"""What a prompt mentions, and the words that separate mentions."""

from __future__ import annotations

from dataclasses import dataclass

ARTICLES = frozenset(("a", "an", "the", "any"))
BREAKS = frozenset(",.;:!?()")  # boundaries of clauses
REACH = 6  # maximum words from "camera" to its direction, or from a color to its noun
NAMES = {"object": "object", "colour": "color", "motion": "motion", "terrain": "place", "time of day": "time of day"}
NAMES |= {"camera": "camera movement"}
KINDS = tuple(NAMES)  # in the order of a caption
NOUNS = ("object", "terrain", "time of day")  # that a color can belong to


@dataclass(frozen=True, slots=True)
class Mention:
    """One thing that a prompt mentions: tokens `start` to `end`, their meaning, and the phrase of captions for it."""

    kind: str
    meaning: str
    phrase: str
    typed: str
    start: int
    end: int
