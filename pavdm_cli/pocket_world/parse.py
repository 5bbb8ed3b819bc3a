"""Parses prompts about pocket's world: object, color, motion, place, time of day, weather and camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pavdm_cli.pocket_world.colors import (
    drop_color_nouns,
    nearest_color,
    sort_colors,
    split_colors,
    split_sky_colors,
)
from pavdm_cli.pocket_world.mentions import (
    ARTICLES,
    BREAKS,
    KINDS,
    NAMES,
    REACH,
    Mention,
    base_forms,
    find_mentions,
    known_phrases,
    tokenize,
)
from pavdm_cli.pocket_world.synonyms import CAMERA, CAMERA_FILLER, CAMERA_WORDS, COUNTS, FILLER, NEGATIONS
from pavdm_cli.pocket_world.vocabulary import AFLOAT, CAMERA_PHRASES, ON_WATER, shorten

MAX_WORDS = 200  # of a prompt
PLURALS = {"boat": "boats", "duck": "ducks"}  # of what is on the sea, nowhere else


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A parsed prompt: at most one mention of each kind, and what cannot be shown along with it."""

    slots: dict[str, Mention] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what pocket shows instead, and what it leaves out
    unused_words: tuple[str, ...] = ()  # words that belong to no mention, except filler
    exclusions: tuple[Mention, ...] = ()  # what the prompt rules out

    def meanings(self) -> dict[str, str]:
        """The meaning of each kind that is mentioned."""
        return {kind: mention.meaning for kind, mention in self.slots.items()}


def parse(text: str) -> ParsedPrompt:
    """Parse a prompt with words in any order."""
    tokens = drop_color_nouns(tokenize(text))[:MAX_WORDS]
    camera, used_indices = find_camera(tokens)
    mentions, of_camera = [*find_mentions(tokens, used_indices), *camera], frozenset(used_indices)
    for mention in mentions:
        used_indices.update(range(mention.start, mention.end))
    other_words = [word for index, word in enumerate(tokens) if index not in used_indices]
    negations = find_negated(tokens, mentions)
    slots, notes = choose_mentions(tokens, [mention for mention in mentions if mention not in negations])
    notes += _several(tokens, slots) + nearest_color(slots)
    unused_words = dict.fromkeys(word for word in other_words if word not in FILLER | BREAKS | COUNTS | NEGATIONS)
    exclusions = tuple(mention for mention, place in negations.items() if place not in of_camera)
    return ParsedPrompt(slots, tuple(dict.fromkeys(notes)), tuple(unused_words), exclusions)


def find_negated(tokens: Sequence[str], mentions: Sequence[Mention]) -> dict[Mention, int]:
    """Mentions after "no", "without" and the like, to that word's index; articles and colors between are ignored."""
    colors = {index for one in mentions if one.kind == "color" for index in range(one.start, one.end)}
    negations = dict[Mention, int]()
    ends = dict[int, int]()  # index after a negated mention, to the index of its negation
    for mention in (one for one in mentions if one.kind != "camera"):
        before = mention.start - 1
        while before >= 0 and (tokens[before] in ARTICLES or before in colors):
            before -= 1
        if before >= 0 and tokens[before] == "or" and before in ends:
            before = ends[before]
        if before >= 0 and tokens[before] in NEGATIONS:
            negations[mention] = ends[mention.end] = before
    return negations


def find_camera(tokens: Sequence[str]) -> tuple[list[Mention], set[int]]:
    """The camera motion, by a direction near "camera", "pan" or the like, and the tokens that belong to it."""
    mentions, used_indices = [], set[int]()
    for place, word in enumerate(tokens):
        if place in used_indices or not _is_form_of(word, CAMERA):
            continue
        before = place > 0 and tokens[place - 1] in CAMERA_WORDS and place - 1 not in used_indices
        way = place - 1 if before else _find_direction(tokens, place)
        if way is None:
            continue
        first, last = min(place, way), max(place, way) + 1
        last += last < len(tokens) and tokens[last] in ("movement", "motion")
        used_indices.update(
            i for i in range(first, last) if _is_form_of(tokens[i], (*CAMERA, *CAMERA_WORDS, *CAMERA_FILLER))
        )
        meaning = CAMERA_WORDS[tokens[way]]
        phrase = camera_phrase(tokens[max(0, first - 1) : last + 1], meaning)
        mentions.append(Mention("camera", meaning, phrase, phrase, way, way + 1))
    return mentions, used_indices


def camera_phrase(tokens: Sequence[str], meaning: str) -> str:
    """The phrase of captions that the prompt contains, or the usual one."""
    phrases, text = [*filter(None, CAMERA_PHRASES[meaning])], f" {' '.join(tokens)} "
    return next((phrase for phrase in phrases if f" {phrase} " in text), phrases[0])


def choose_mentions(tokens: Sequence[str], mentions: Sequence[Mention]) -> tuple[dict[str, Mention], list[str]]:
    """The first possible mention of each kind, and messages on what is left out."""
    slots, notes = dict[str, Mention](), list[str]()
    for kind in KINDS:
        candidates = [mention for mention in mentions if mention.kind == kind]
        if kind == "color":
            own, of_sky = split_sky_colors(tokens, mentions)
            own, foreign = split_colors(tokens, own, slots.get("object"))
            candidates, of_ground = sort_colors(tokens, own, slots.get("object"))
            notes += [f"the ground in its own colors{omission_note(of_ground)}"] if of_ground else []
            notes += [f"the sky in the colors of its time of day{omission_note(of_sky)}"] if of_sky else []
            notes += [f"no color but the {slots['object'].typed}'s{omission_note(foreign)}"] if foreign else []
        if kind in ("motion", "terrain") and slots.get("object") and slots["object"].meaning in AFLOAT:
            possible = ON_WATER if kind == "motion" else ("sea",)
            where = "drifting, bobbing or resting" if kind == "motion" else "on the sea"
            wrong = [mention for mention in candidates if mention.meaning not in possible]
            candidates = [mention for mention in candidates if mention.meaning in possible]
            notes += [f"{PLURALS[slots['object'].meaning]} {where}{omission_note(wrong)}"] if wrong else []
        if candidates:
            slots[kind] = candidates[0]
            other = [mention for mention in candidates if mention.meaning != candidates[0].meaning]
            notes += [f"one {NAMES[kind]}: {candidates[0].typed}{omission_note(other)}"] if other else []
    return slots, notes


def _find_direction(tokens: Sequence[str], place: int) -> int | None:
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


def omission_note(mentions: Sequence[Mention]) -> str:
    """The words of mentions that are left out."""
    return f" (left out: {shorten([*dict.fromkeys(mention.typed for mention in mentions)], ', ')})"
