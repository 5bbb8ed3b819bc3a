"""Formats a prompt as one of the captions that pocket was trained on; missing parts are filled in from the seed."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from itertools import takewhile

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.changing_day import split_day
from pavdm_cli.pocket_world.mentions import DRAWN, KINDS, NAMES, Mention, known_phrases, tokenize
from pavdm_cli.pocket_world.parse import MAX_WORDS, ParsedPrompt, parse
from pavdm_cli.pocket_world.synonyms import EVERYDAY, FILLER, NEAREST_COLORS, SYNONYMS
from pavdm_cli.pocket_world.vocabulary import (
    AFLOAT,
    CAMERAS,
    COLORS,
    MOTIONS,
    NAMED,
    OBJECTS,
    ON_WATER,
    PHRASES,
    TERRAINS,
    TIMES,
    VOCABULARY,
    WEATHERS,
    shorten,
    split,
)

HINT = "`pavdm models show pocket` lists the English words it knows"
AFLOAT_PHRASES = {"bouncing": "bobbing", "hovering": "resting"}  # how a boat's motions are better said
IN_THE_AIR = ("fly", "flie", "flew", "flown", "soar", "flap", "flutter")  # how words begin that no boat can do
SURE = 0.88  # similarity at which an unknown word is a misspelled one
MAX_QUOTED = 200  # characters of a prompt in an error
PREPOSITIONS = {"drifting": "over", "bouncing": "over", "circling": "above", "hovering": "above"}

GRAMMAR = (
    ("in full", "a COLOR OBJECT MOTION over PLACE TIME OF DAY WEATHER, CAMERA MOVEMENT"),
    ("for example", "a red balloon drifting over green hills at sunset, the camera pans left"),
    ("in part", "what a prompt leaves out is filled in from the seed, except camera and weather; a note says how"),
    ("without", "what a prompt rules out (no boat, not red) is not drawn from the seed either"),
    ("boats, ducks", "are on the sea, and do not circle"),
    ("the weather", "is clear unless the prompt says otherwise"),
    ("the camera", "is still unless the prompt says otherwise"),
    ("later", "'as the sun sets', 'as night falls', 'as the sun rises': day, sunset and night follow one another"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The caption that the text encoder gets, and notes on how it differs from the prompt.

    later: captions that follow while the video runs, each with its start in seconds.
    """

    text: str
    notes: tuple[str, ...] = ()
    later: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A meaning and the phrase of captions for it."""

    meaning: str
    phrase: str


def format_prompt(text: str, seed: int, source: str = "") -> Prompt:
    """The full caption of a prompt; missing parts come from `source`, the caption of the continued video, or are drawn.

    A full caption is returned unchanged. Raises: UsageError.
    """
    original, day = text, split_day(text)
    text, corrections = correct_spelling(day.text)
    parsed = parse(text)
    if not parsed.slots and not parsed.exclusions:
        near = suggestions([word for word in parsed.unused_words if word not in single_words()])
        hint = f"did you mean {', '.join(dict.fromkeys(near.values()))}? {HINT}" if near else HINT
        excerpt = text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."
        raise UsageError(f"pocket knows none of the words in {excerpt!r}", hint)
    complete = all(kind in parsed.slots for kind in DRAWN)
    before = {} if complete else parse(source).slots
    slots = fill_slots(parsed.slots, before, seed, parsed.exclusions)
    phrases = {kind: choice.phrase for kind, choice in slots.items()}
    where = preposition(slots["object"].meaning, slots["motion"].meaning)
    captions = sentences(phrases, where)
    order = next((number for number, caption in enumerate(captions) if split(text) == split(caption)), None)
    caption = captions[0] if order is None else text
    origin = "the video and the seed" if before else "the seed"
    long = (
        [f"pocket reads {MAX_WORDS} words of a prompt; the rest is left out"] if len(tokenize(text)) > MAX_WORDS else []
    )
    symbols = [*dict.fromkeys(char for char in original if unicodedata.category(char) == "So")]
    unread = [f"pocket reads only words; left out: {shorten(symbols, ' ')}"] if symbols else []
    changes = (*long, *unread, *corrections, *notes(parsed), *caption_note(parsed, original, caption, origin))
    later = ((start, phrases | {"time of day": PHRASES["time of day"][time][0]}) for start, time in day.later)
    return Prompt(caption, changes, tuple((start, sentences(then, where)[order or 0]) for start, then in later))


def correct_spelling(text: str) -> tuple[str, list[str]]:
    """The prompt with misspelled words corrected, where nothing else of their kind is mentioned, and a note on each."""
    parsed = parse(text)
    lines = list[str]()
    for word, close in suggestions([word for word in parsed.unused_words if word not in single_words()]).items():
        kind, *_ = known_phrases().get((close,), ("",))
        if kind and kind not in parsed.slots and SequenceMatcher(None, word, close).ratio() >= SURE:
            text = re.sub(rf"\b{re.escape(word)}\b", close, text, flags=re.IGNORECASE)
            lines.append(f'pocket reads "{word}" as "{close}"')
    return text, lines


def sentences(phrases: Mapping[str, str], preposition: str) -> tuple[str, str, str]:
    """The word orders of training captions; phrases of motion, weather and camera may be empty."""
    thing = with_article(f"{phrases['color']} {phrases['object']} {phrases['motion']}".rstrip())
    where, when = f"{preposition} {phrases['terrain']}", phrases["time of day"]
    weather = f" {phrases['weather']}" if phrases["weather"] else ""
    camera = f", {phrases['camera']}" if phrases["camera"] else ""
    return (
        f"{thing} {where} {when}{weather}{camera}",
        f"{when}{weather}, {thing} {where}{camera}",
        f"{where} {when}{weather}, {thing}{camera}",
    )


def with_article(words: str) -> str:
    """The words behind "a" or "an"; a ufo begins like "you"."""
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('ufo') else 'a'} {words}"


def preposition(thing: str, motion: str) -> str:
    """The preposition between an object and its place."""
    return "on" if thing in AFLOAT else PREPOSITIONS[motion]


def fill_slots(
    mentions: Mapping[str, Mention], source: Mapping[str, Mention], seed: int, negations: Sequence[Mention] = ()
) -> dict[str, Choice]:
    """A choice for every kind: as mentioned, else as in the source if possible, else drawn from the seed.

    Kinds are drawn independently, so that mentioning one does not change the others.
    """
    slots = dict[str, Choice]()
    for kind in KINDS:
        possible = possible_values(kind, mentions, slots)
        exclusions = {one.meaning for one in negations if one.kind == kind not in mentions}
        options = [value for value in possible if value not in exclusions] or possible
        mention = mentions.get(kind) or source.get(kind)
        if mention and mention.meaning in options:
            slots[kind] = Choice(mention.meaning, mention.phrase)
        else:
            meaning = draw_value(kind, options, seed)
            own = AFLOAT_PHRASES if slots and slots["object"].meaning in AFLOAT else {}
            slots[kind] = Choice(meaning, own.get(meaning, PHRASES[kind][meaning][0]))
    return slots


def possible_values(kind: str, mentions: Mapping[str, Mention], slots: Mapping[str, Choice]) -> Sequence[str]:
    """The values that are compatible with what is decided: what floats stays on the sea and does not circle."""
    afloat = kind != "object" and slots["object"].meaning in AFLOAT
    if kind == "object":
        return possible_objects(mentions)
    if kind == "camera":
        return CAMERAS
    if kind == "weather":
        return WEATHERS
    values = {"color": COLORS, "motion": MOTIONS, "terrain": TERRAINS, "time of day": TIMES}
    return {"motion": ON_WATER, "terrain": ("sea",)}.get(kind, values[kind]) if afloat else values[kind]


def possible_objects(mentions: Mapping[str, Mention]) -> Sequence[str]:
    """The objects that can be where a prompt says, and move as it says."""
    motion, typed = (mentions["motion"].meaning, mentions["motion"].typed) if "motion" in mentions else ("", "")
    dry = "terrain" in mentions and mentions["terrain"].meaning != "sea"
    if typed.startswith("sail") and not dry and "object" not in mentions:
        return ["boat"]
    flies = (motion and motion not in ON_WATER) or typed.startswith(IN_THE_AIR)
    return [name for name in OBJECTS if name not in AFLOAT or not (dry or flies)]


def draw_value(kind: str, options: Sequence[str], seed: int) -> str:
    """One of the options, a pure function of kind and seed; an unmentioned camera is still, and weather clear."""
    if kind not in DRAWN:
        return options[0]
    digest = hashlib.sha256(f"{kind} {seed}".encode()).digest()
    return options[int.from_bytes(digest, "big") % len(options)]


def notes(parsed: ParsedPrompt) -> list[str]:
    """Lines on unknown words, on known words without effect, and on contradictions."""
    vocabulary = single_words()
    unknown_words = [word for word in parsed.unused_words if word not in vocabulary]
    words_without_effect = [word for word in parsed.unused_words if word in vocabulary]
    similar = suggestions(unknown_words)
    items = [f"{word} (did you mean {similar[word]}?)" if word in similar else word for word in unknown_words]
    lines = [f"pocket does not know: {shorten(items, ', ')}; {HINT}"] if items else []
    lines += [f"pocket ignores: {shorten(words_without_effect, ', ')}"] if words_without_effect else []
    excluded_words = [*dict.fromkeys(one.typed for one in parsed.exclusions)]
    lines += [f"pocket leaves out what the prompt rules out: {shorten(excluded_words, ', ')}"] if excluded_words else []
    return lines + ([f"pocket shows {shorten([*parsed.notes], '; ')}"] if parsed.notes else [])


def caption_note(parsed: ParsedPrompt, text: str, caption: str, origin: str) -> list[str]:
    """A line on what the prompt leaves out or how it is interpreted; none if it is a full caption."""
    missing = [NAMES[kind] for kind in DRAWN if kind not in parsed.slots]
    if missing:
        names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        return [f'the prompt leaves out {names}; filled in from {origin}: "{caption}"']
    return [] if split(text) == split(caption) else [f'pocket reads the prompt as "{caption}"']


def suggestions(unknown: Sequence[str]) -> dict[str, str]:
    """The nearest word with a meaning of its own for each of the first unknown ones, if there is one."""
    vocabulary = sorted(words[0] for words in known_phrases() if len(words) == 1)
    near = {word: _nearest(word, vocabulary) for word in unknown[:NAMED]}
    return {word: close for word, close in near.items() if close}


@cache
def single_words() -> frozenset[str]:
    """Every known word."""
    return frozenset(VOCABULARY).union(words[0] for words in known_phrases() if len(words) == 1) - FILLER


def _nearest(word: str, vocabulary: Sequence[str]) -> str:
    """The nearest known word with the same first letter, which most typing errors keep; none for everyday words."""
    if word in EVERYDAY:
        return ""
    cutoff = 0.85 if len(word) < 4 else 0.75 if len(word) < 6 else 0.8
    candidates = [
        other for other in vocabulary if other[0] == word[0] and (len(word) >= 7 or _is_one_edit(word, other))
    ]
    close = get_close_matches(word, candidates, 1, cutoff)
    return close[0] if close else ""


def _is_one_edit(word: str, other: str) -> bool:
    """Whether two words differ by a letter, or by two neighbors that are swapped."""
    start = _common_length(word, other)
    end = _common_length(word[start:][::-1], other[start:][::-1])
    left, right = (text[start : len(text) - end] for text in (word, other))
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _common_length(word: str, other: str) -> int:
    """Letters with which both words begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False)))


def vocabulary() -> list[tuple[str, str, str, str]]:
    """A row for every meaning: kind, meaning, phrases of captions, and their synonyms."""
    rows = []
    for kind in KINDS:
        for index, (meaning, phrases) in enumerate(PHRASES[kind].items()):
            synonyms = ", ".join(filter(None, (SYNONYMS.get(kind, {}).get(phrase) for phrase in phrases)))
            nearest = NEAREST_COLORS.get(meaning, "") if kind == "color" else ""
            synonyms += f"; the nearest to {nearest}" if nearest else ""
            unique = ", ".join(dict.fromkeys(filter(None, phrases)))
            rows.append(("" if index else NAMES[kind], meaning, unique, synonyms))
    return rows
