"""A prompt to the caption that pocket's text encoder was trained on: what is left out is filled in from the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.parse import KINDS, LONGEST, NAMES, Mention, Parsed, parse, phrases, tokenize
from pavdm_cli.pocket_world.synonyms import FILLER, NEAREST_COLOURS, SYNONYMS
from pavdm_cli.pocket_world.vocabulary import (
    COLOURS,
    MOTIONS,
    NAMED,
    OBJECTS,
    ON_WATER,
    TERRAINS,
    TIMES,
    VOCABULARY,
    WORDINGS,
    some,
    split,
)

HINT = "`pavdm models show pocket` lists the words it knows"
AFLOAT = {"bouncing": "bobbing", "hovering": "resting"}  # how a boat's motions are better said
SHOWN = 200  # characters of a prompt that an error repeats
PREPOSITIONS = {"drifting": "over", "bouncing": "over", "circling": "above", "hovering": "above"}

GRAMMAR = (
    ("in full", "a COLOUR OBJECT MOTION over PLACE TIME OF DAY, CAMERA MOVEMENT"),
    ("for example", "a red balloon drifting over green hills at sunset, the camera pans left"),
    ("in part", "what a prompt leaves out, but for the camera, is filled in from the seed; one note says with what"),
    ("boats", "are on the sea, and do not circle"),
    ("the camera", "is still unless the prompt says otherwise"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the text encoder reads, and notes on what became of the prompt as it was typed."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What a kind of word means in a caption, and the wording."""

    meaning: str
    wording: str


def format_prompt(text: str, seed: int, source: str = "") -> Prompt:
    """The full caption of a prompt; `source` is that of the video it continues, whose words come before the seed's.

    A full caption comes back as it is. Raises: UsageError.
    """
    if not text.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')
    parsed = parse(text)
    if not parsed.slots:
        near = suggestions([word for word in parsed.unused if word not in single_words()])
        hint = f"did you mean {', '.join(dict.fromkeys(near.values()))}? {HINT}" if near else HINT
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        raise UsageError(f"pocket knows none of the words in {shown!r}", hint)
    complete = all(kind in parsed.slots for kind in KINDS[:-1])
    before = {} if complete else parse(source).slots
    slots = fill(parsed.slots, before, seed)
    wordings = {kind: choice.wording for kind, choice in slots.items()}
    captions = sentences(wordings, preposition(slots["object"].meaning, slots["motion"].meaning))
    caption = text if split(text) in map(split, captions) else captions[0]
    origin = "the video and the seed" if before else "the seed"
    long = [f"pocket reads {LONGEST} words of a prompt; the rest is left out"] if len(tokenize(text)) > LONGEST else []
    return Prompt(caption, (*long, *notes(parsed), *caption_note(parsed, text, caption, origin)))


def sentences(wordings: Mapping[str, str], preposition: str) -> tuple[str, str, str]:
    """The orders of words in which training captions say the same; wordings of motion and camera may be empty."""
    thing = f"a {wordings['colour']} {wordings['object']} {wordings['motion']}".rstrip()
    where, when = f"{preposition} {wordings['terrain']}", wordings["time of day"]
    camera = f", {wordings['camera']}" if wordings["camera"] else ""
    return f"{thing} {where} {when}{camera}", f"{when}, {thing} {where}{camera}", f"{where} {when}, {thing}{camera}"


def preposition(thing: str, motion: str) -> str:
    """Between an object and its place."""
    return "on" if thing == "boat" else PREPOSITIONS[motion]


def fill(named: Mapping[str, Mention], source: Mapping[str, Mention], seed: int) -> dict[str, Choice]:
    """A choice for every kind: as named, else as in the source where that can be, else from the seed.

    Each kind is drawn for itself, so that naming one does not change what is filled in for the others.
    """
    slots = dict[str, Choice]()
    for kind in KINDS:
        options = possible(kind, named, slots)
        mention = named.get(kind) or source.get(kind)
        if mention and mention.meaning in options:
            slots[kind] = Choice(mention.meaning, mention.wording)
        else:
            meaning = draw(kind, options, seed)
            own = AFLOAT if slots and slots["object"].meaning == "boat" else {}
            slots[kind] = Choice(meaning, own.get(meaning, WORDINGS[kind][meaning][0]))
    return slots


def possible(kind: str, named: Mapping[str, Mention], slots: Mapping[str, Choice]) -> Sequence[str]:
    """What the world can show beside what is decided: boats stay on the sea and do not circle."""
    afloat = kind != "object" and slots["object"].meaning == "boat"
    if kind == "object":
        dry = "terrain" in named and named["terrain"].meaning != "sea"
        flies = "motion" in named and named["motion"].meaning not in ON_WATER
        sails = "motion" in named and named["motion"].typed.startswith("sail")
        return ["boat"] if sails and not dry else [name for name in OBJECTS if name != "boat" or not (dry or flies)]
    if kind == "camera":
        return "still", "left", "right"
    values = {"colour": COLOURS, "motion": MOTIONS, "terrain": TERRAINS, "time of day": TIMES}
    return {"motion": ON_WATER, "terrain": ("sea",)}.get(kind, values[kind]) if afloat else values[kind]


def draw(kind: str, options: Sequence[str], seed: int) -> str:
    """One of the options, as a pure function of kind and seed; a camera that nobody mentions is still."""
    if kind == "camera":
        return options[0]
    digest = hashlib.sha256(f"{kind} {seed}".encode()).digest()
    return options[int.from_bytes(digest, "big") % len(options)]


def notes(parsed: Parsed) -> list[str]:
    """A line on words that pocket does not know, one on those it has no use for, and one on what contradicts itself."""
    known = single_words()
    strange = [word for word in parsed.unused if word not in known]
    idle = [word for word in parsed.unused if word in known]
    near = suggestions(strange)
    named = [f"{word} (did you mean {near[word]}?)" if word in near else word for word in strange]
    lines = [f"pocket does not know: {some(named, ', ')}; {HINT}"] if strange else []
    lines += [f"pocket has no use here for: {some(idle, ', ')}"] if idle else []
    return lines + ([f"pocket shows {some([*parsed.refused], '; ')}"] if parsed.refused else [])


def caption_note(parsed: Parsed, text: str, caption: str, origin: str) -> list[str]:
    """A line on what the prompt leaves out, or on how else it is read; none if it is read as it is."""
    missing = [NAMES[kind] for kind in KINDS[:-1] if kind not in parsed.slots]
    if missing:
        listed = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        return [f'the prompt leaves out {listed}; filled in from {origin}: "{caption}"']
    return [] if split(text) == split(caption) else [f'pocket reads the prompt as "{caption}"']


def suggestions(unknown: Sequence[str]) -> dict[str, str]:
    """The known word that each of the first unknown ones looks like, where there is one."""
    known = sorted(single_words())
    near = {word: _nearest(word, known) for word in unknown[:NAMED]}
    return {word: close for word, close in near.items() if close}


@cache
def single_words() -> frozenset[str]:
    """Every word that is part of what pocket understands."""
    return frozenset(VOCABULARY).union(words[0] for words in phrases() if len(words) == 1) - FILLER


def _nearest(word: str, known: Sequence[str]) -> str:
    """The known word most like one, of those that begin alike: a slip of the finger mostly keeps the first letter."""
    cutoff = 0.85 if len(word) < 4 else 0.75 if len(word) < 6 else 0.8
    close = get_close_matches(word, [other for other in known if other[0] == word[0]], 1, cutoff)
    return close[0] if close else ""


def vocabulary() -> list[tuple[str, str, str, str]]:
    """A row for every meaning: its kind, what it means, the wordings of captions, and their synonyms."""
    rows = []
    for kind in KINDS:
        for index, (meaning, wordings) in enumerate(WORDINGS[kind].items()):
            synonyms = ", ".join(filter(None, (SYNONYMS.get(kind, {}).get(wording) for wording in wordings)))
            nearest = NEAREST_COLOURS.get(meaning, "") if kind == "colour" else ""
            synonyms += f"; the nearest to {nearest}" if nearest else ""
            said = ", ".join(dict.fromkeys(filter(None, wordings)))
            rows.append(("" if index else NAMES[kind], meaning, said, synonyms))
    return rows
