"""Parses prompts about pocket's world: object, color, motion, place, time of day and camera."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from pavdm_cli.pocket_world.colours import (
    drop_color_nouns,
    nearest_colour,
    sort_colours,
    split_colours,
    split_sky_colours,
)
from pavdm_cli.pocket_world.mentions import ARTICLES, BREAKS, KINDS, NAMES, REACH, Mention
from pavdm_cli.pocket_world.synonyms import (
    CAMERA,
    CAMERA_FILLER,
    CAMERA_WORDS,
    COUNTS,
    FILLER,
    LOOKING,
    NEAREST_COLOURS,
    NEGATIONS,
    SYNONYMS,
)
from pavdm_cli.pocket_world.vocabulary import CAMERA_PHRASES, ON_WATER, PHRASES, shorten

MAX_WORDS = 200  # of a prompt


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed prompt: at most one mention of each kind, and what cannot be shown along with it."""

    slots: dict[str, Mention] = field(default_factory=dict)
    refused: tuple[str, ...] = ()  # messages: what pocket shows instead, and what it leaves out
    unused: tuple[str, ...] = ()  # words that belong to no mention, except filler
    negated: tuple[Mention, ...] = ()  # what the prompt rules out

    def meanings(self) -> dict[str, str]:
        """The meaning of each kind that is mentioned."""
        return {kind: mention.meaning for kind, mention in self.slots.items()}


def parse(text: str) -> Parsed:
    """Parse a prompt with words in any order."""
    tokens = drop_color_nouns(tokenize(text))[:MAX_WORDS]
    camera, used = find_camera(tokens)
    mentions, of_camera = [*find_mentions(tokens, used), *camera], frozenset(used)
    for mention in mentions:
        used.update(range(mention.start, mention.end))
    left = [word for index, word in enumerate(tokens) if index not in used]
    negated = find_negated(tokens, mentions)
    slots, refused = choose_mentions(tokens, [mention for mention in mentions if mention not in negated])
    refused += _several(tokens, slots) + nearest_colour(slots)
    unused = dict.fromkeys(word for word in left if word not in FILLER | BREAKS | COUNTS | NEGATIONS)
    ruled_out = tuple(mention for mention, place in negated.items() if place not in of_camera)
    return Parsed(slots, tuple(dict.fromkeys(refused)), tuple(unused), ruled_out)


def find_negated(tokens: Sequence[str], mentions: Sequence[Mention]) -> dict[Mention, int]:
    """Mentions after "no", "without" and the like, to that word's index; articles and colors between are ignored."""
    colours = {index for one in mentions if one.kind == "colour" for index in range(one.start, one.end)}
    negated = dict[Mention, int]()
    ends = dict[int, int]()  # index after a negated mention, to the index of its negation
    for mention in (one for one in mentions if one.kind != "camera"):
        before = mention.start - 1
        while before >= 0 and (tokens[before] in ARTICLES or before in colours):
            before -= 1
        if before >= 0 and tokens[before] == "or" and before in ends:
            before = ends[before]
        if before >= 0 and tokens[before] in NEGATIONS:
            negated[mention] = ends[mention.end] = before
    return negated


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
            for phrase in filter(None, phrases):
                synonyms = SYNONYMS.get(kind, {}).get(phrase, "")
                for words in filter(None, (phrase, *synonyms.split(", "))):
                    by_words[tuple(words.split())] = (kind, meaning, phrase)
    for colour, names in NEAREST_COLOURS.items():
        by_words |= {(name,): ("colour", colour, colour) for name in names.split(", ")}
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


def find_camera(tokens: Sequence[str]) -> tuple[list[Mention], set[int]]:
    """The camera motion, by a direction near "camera", "pan" or the like, and the tokens that belong to it."""
    mentions, used = [], set[int]()
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
        phrase = camera_phrase(tokens[max(0, first - 1) : last + 1], meaning)
        mentions.append(Mention("camera", meaning, phrase, phrase, way, way + 1))
    return mentions, used


def camera_phrase(tokens: Sequence[str], meaning: str) -> str:
    """The phrase of captions that the prompt contains, or the usual one."""
    phrases, text = [*filter(None, CAMERA_PHRASES[meaning])], f" {' '.join(tokens)} "
    return next((phrase for phrase in phrases if f" {phrase} " in text), phrases[0])


def choose_mentions(tokens: Sequence[str], mentions: Sequence[Mention]) -> tuple[dict[str, Mention], list[str]]:
    """The first possible mention of each kind, and messages on what is left out."""
    slots, refused = dict[str, Mention](), list[str]()
    for kind in KINDS:
        named = [mention for mention in mentions if mention.kind == kind]
        if kind == "colour":
            own, of_sky = split_sky_colours(tokens, mentions)
            own, foreign = split_colours(tokens, own, slots.get("object"))
            named, of_ground = sort_colours(tokens, own, slots.get("object"))
            refused += [f"the ground in its own colors{_left_out(of_ground)}"] if of_ground else []
            refused += [f"the sky in the colors of its time of day{_left_out(of_sky)}"] if of_sky else []
            refused += [f"no color but the {slots['object'].typed}'s{_left_out(foreign)}"] if foreign else []
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
    """A message if a prompt asks for several objects."""
    if "object" not in slots:
        return []
    mention = slots["object"]
    plural = mention.typed.endswith("s") and tuple(mention.typed.split()) not in known_phrases()
    return [f"one {mention.meaning}, not several"] if plural or COUNTS.intersection(tokens) else []


def _left_out(mentions: Sequence[Mention]) -> str:
    """The words of mentions that are left out."""
    return f" (left out: {shorten([*dict.fromkeys(mention.typed for mention in mentions)], ', ')})"
