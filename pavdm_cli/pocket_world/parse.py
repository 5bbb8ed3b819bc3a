"""What a prompt says of pocket's world: object, colour, motion, place, time of day and camera."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from pavdm_cli.pocket_world.synonyms import (
    CAMERA,
    CAMERA_FILLER,
    CAMERA_WORDS,
    COUNTS,
    FILLER,
    LOOKING,
    NEAREST_COLOURS,
    PREPOSITIONS,
    SYNONYMS,
)
from pavdm_cli.pocket_world.vocabulary import CAMERA_WORDINGS, ON_WATER, WORDINGS, some

BREAKS = frozenset(",.;:!?()")  # what a word does not reach across
REACH = 6  # words from "camera" to its direction, or from a colour to its noun
LONGEST = 200  # words of a prompt that are read
NAMES = {"object": "object", "colour": "colour", "motion": "motion", "terrain": "place", "time of day": "time of day"}
NAMES |= {"camera": "camera movement"}
KINDS = tuple(NAMES)  # in the order of a caption
NOUNS = ("object", "terrain", "time of day")  # what a colour can be of


@dataclass(frozen=True, slots=True)
class Mention:
    """One thing that a prompt names: tokens `start` to `end`, what they mean, and a caption's wording of it."""

    kind: str
    meaning: str
    wording: str
    typed: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """A prompt, read: one mention of each kind at most, and what cannot be shown beside it."""

    slots: dict[str, Mention] = field(default_factory=dict)
    refused: tuple[str, ...] = ()  # phrases: what pocket shows, and what it leaves out for that
    unused: tuple[str, ...] = ()  # words that are in no mention and mean something elsewhere

    def meanings(self) -> dict[str, str]:
        """What each kind that is named means."""
        return {kind: mention.meaning for kind, mention in self.slots.items()}


def parse(text: str) -> Parsed:
    """Read a prompt in any order of words."""
    tokens = tokenize(text)[:LONGEST]
    camera, used = find_camera(tokens)
    mentions = [*find_mentions(tokens, used), *camera]
    for mention in mentions:
        used.update(range(mention.start, mention.end))
    left = [word for index, word in enumerate(tokens) if index not in used]
    slots, refused = choose_mentions(tokens, mentions)
    refused += _several(tokens, slots) + _nearest_colour(slots)
    unused = dict.fromkeys(word for word in left if word not in FILLER | BREAKS | COUNTS)
    return Parsed(slots, tuple(dict.fromkeys(refused)), tuple(unused))


def tokenize(text: str) -> list[str]:
    """Lower-case words and the punctuation that parts them; possessive endings are dropped."""
    return re.findall(r"[^\W_]+|[,.;:!?()]", re.sub(r"['’]s\b", "", text.lower()))


@cache
def phrases() -> dict[tuple[str, ...], tuple[str, str, str]]:
    """Every phrase with a meaning, as words, to (kind, meaning, wording)."""
    table = {}
    for kind in KINDS[:-1]:  # the camera has its own rules
        for meaning, wordings in WORDINGS[kind].items():
            for wording in filter(None, wordings):
                synonyms = SYNONYMS.get(kind, {}).get(wording, "")
                for phrase in filter(None, (wording, *synonyms.split(", "))):
                    table[tuple(phrase.split())] = (kind, meaning, wording)
    for colour, names in NEAREST_COLOURS.items():
        table |= {(name,): ("colour", colour, colour) for name in names.split(", ")}
    return table


@cache
def longest_phrases() -> dict[str, int]:
    """The words that a phrase can begin with, and how many words the longest has."""
    longest: dict[str, int] = {}
    for words in phrases():
        longest[words[0]] = max(len(words), longest.get(words[0], 0))
    return longest


@lru_cache(maxsize=1024)
def base_forms(word: str) -> tuple[str, ...]:
    """A word and what it may be an inflection of: boats, bounces, circled, hopping."""
    forms = [word]
    for ending, shortest in (("s", 3), ("es", 4), ("ed", 5), ("ing", 5)):
        if word.endswith(ending) and len(word) > shortest and not word.endswith("ss"):
            stem = word.removesuffix(ending)
            forms += [stem, stem + "e"] if ending != "s" else [stem]
            forms += [stem[:-1]] if stem[-2:-1] == stem[-1:] else []
            forms += [stem[:-1] + "y"] if stem.endswith("i") else []
    return tuple(forms)


def find_mentions(tokens: Sequence[str], used: set[int]) -> Iterator[Mention]:
    """Every phrase with a meaning, the longest at each place first."""
    index = 0
    while index < len(tokens):
        mention = None if index in used else longest_mention(tokens, index)
        if mention:
            yield mention
        index = mention.end if mention else index + 1


def longest_mention(tokens: Sequence[str], start: int) -> Mention | None:
    """The longest phrase that begins at a token, inflected or not."""
    if tokens[start].startswith("see") and (tokens[start] != "see" or tokens[max(0, start - 1)] in LOOKING):
        return None
    firsts = [form for form in base_forms(tokens[start]) if form in longest_phrases()]
    longest = max((longest_phrases()[form] for form in firsts), default=0)
    for end in range(min(len(tokens), start + longest), start, -1):
        for first in firsts:
            for last in base_forms(tokens[end - 1]):
                words = (first, *tokens[start + 1 : end - 1], last) if end - start > 1 else (first,)
                if words in phrases():
                    return Mention(*phrases()[words], " ".join(tokens[start:end]), start, end)
    return None


def find_camera(tokens: Sequence[str]) -> tuple[list[Mention], set[int]]:
    """Where the camera looks, by a direction near "camera", "pan" and the like, and the tokens that say so."""
    found, used = [], set[int]()
    for place, word in enumerate(tokens):
        if place in used or not _is_form_of(word, CAMERA):
            continue
        before = place > 0 and tokens[place - 1] in CAMERA_WORDS and place - 1 not in used
        way = place - 1 if before else _direction_after(tokens, place)
        if way is None:
            continue
        first, last = min(place, way), max(place, way) + 1
        last += last < len(tokens) and tokens[last] in ("movement", "motion")
        used.update(i for i in range(first, last) if _is_form_of(tokens[i], (*CAMERA, *CAMERA_WORDS, *CAMERA_FILLER)))
        meaning = CAMERA_WORDS[tokens[way]]
        wording = camera_wording(tokens[max(0, first - 1) : last + 1], meaning)
        found.append(Mention("camera", meaning, wording, wording, way, way + 1))
    return found, used


def camera_wording(tokens: Sequence[str], meaning: str) -> str:
    """The wording in which a prompt says it, or the usual one."""
    wordings, text = [*filter(None, CAMERA_WORDINGS[meaning])], f" {' '.join(tokens)} "
    return next((wording for wording in wordings if f" {wording} " in text), wordings[0])


def choose_mentions(tokens: Sequence[str], mentions: Sequence[Mention]) -> tuple[dict[str, Mention], list[str]]:
    """One mention of each kind, the first that pocket can show, and what it leaves out for that."""
    slots, refused = dict[str, Mention](), list[str]()
    for kind in KINDS:
        named = [mention for mention in mentions if mention.kind == kind]
        if kind == "colour":
            named, of_ground = sort_colours(tokens, mentions, slots.get("object"))
            refused += [f"the ground in its own colours{_left_out(of_ground)}"] if of_ground else []
        if kind in ("motion", "terrain") and slots.get("object") and slots["object"].meaning == "boat":
            possible = ON_WATER if kind == "motion" else ("sea",)
            where = "drifting, bobbing or resting" if kind == "motion" else "on the sea"
            wrong = [mention for mention in named if mention.meaning not in possible]
            named = [mention for mention in named if mention.meaning in possible]
            refused += [f"boats {where}{_left_out(wrong)}"] if wrong else []
        if named:
            slots[kind] = named[0]
            other = [mention for mention in named if mention.meaning != named[0].meaning]
            refused += [f"one {NAMES[kind]}: {named[0].typed}{_left_out(other)}"] if other else []
    return slots, refused


def sort_colours(
    tokens: Sequence[str], mentions: Sequence[Mention], shown: Mention | None
) -> tuple[list[Mention], list[Mention]]:
    """Colours that can be the object's, its own first, and those of the ground; another object's are in neither."""
    ranked, of_ground, noun = list[tuple[int, int, Mention]](), list[Mention](), None
    for mention in sorted(mentions, key=lambda mention: -mention.start):
        if mention.kind in NOUNS:
            noun = mention
        if mention.kind != "colour":
            continue
        owner = noun if noun and _reaches(tokens, mention.end, noun.start) else None
        if owner is None or (shown and owner.kind == "object" and owner.meaning == shown.meaning):
            ranked.append((1 if owner is None else 0, mention.start, mention))
        elif owner.kind != "object" and _after_preposition(tokens, mention.start):
            of_ground.append(mention)
        elif owner.kind != "object":
            ranked.append((2, mention.start, mention))
    return [mention for _, _, mention in sorted(ranked, key=lambda row: row[:2])], of_ground[::-1]


def _reaches(tokens: Sequence[str], end: int, noun: int) -> bool:
    """Whether an adjective that ends before one token can be of the noun at another."""
    return noun - end <= REACH and not BREAKS.union(PREPOSITIONS).intersection(tokens[end:noun])


def _after_preposition(tokens: Sequence[str], place: int) -> bool:
    """Whether a preposition stands before a token, articles aside."""
    before = [word for word in tokens[max(0, place - 2) : place] if word not in ("a", "an", "the")]
    return bool(before) and before[-1] in PREPOSITIONS


def _direction_after(tokens: Sequence[str], place: int) -> int | None:
    """The nearest direction after a token, within its clause."""
    for index in range(place + 1, min(len(tokens), place + 1 + REACH)):
        if tokens[index] in BREAKS:
            return None
        if tokens[index] in CAMERA_WORDS:
            return index
    return None


def _is_form_of(word: str, words: Sequence[str]) -> bool:
    return any(form in words for form in base_forms(word))


def _several(tokens: Sequence[str], slots: dict[str, Mention]) -> list[str]:
    """A phrase where a prompt asks for more than one of its object."""
    if "object" not in slots:
        return []
    mention = slots["object"]
    plural = mention.typed.endswith("s") and tuple(mention.typed.split()) not in phrases()
    return [f"one {mention.meaning}, not several"] if plural or COUNTS.intersection(tokens) else []


def _nearest_colour(slots: dict[str, Mention]) -> list[str]:
    """A phrase where a prompt asks for a colour that pocket does not have."""
    colour = slots.get("colour")
    lacking = colour and colour.typed in NEAREST_COLOURS.get(colour.wording, "").split(", ")
    return [f"{colour.wording}, the colour nearest to {colour.typed}"] if colour and lacking else []


def _left_out(mentions: Sequence[Mention]) -> str:
    """What was typed of each, once, and of many the first few."""
    return f" (left out: {some([*dict.fromkeys(mention.typed for mention in mentions)], ', ')})"
