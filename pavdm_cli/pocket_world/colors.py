"""Which thing of a prompt a color belongs to: the object, the ground, the sky or something unknown."""

from __future__ import annotations

from collections.abc import Sequence

from pavdm_cli.pocket_world.mentions import ARTICLES, BREAKS, NOUNS, REACH, Mention
from pavdm_cli.pocket_world.synonyms import CAMERA, COUNTS, FILLER, NEAREST_COLORS, NEGATIONS, PREPOSITIONS

SKY = ("sky", "skies")
COLOR_NOUNS = ("color", "colors", "colour", "colours")


def drop_color_nouns(tokens: Sequence[str]) -> list[str]:
    """Tokens without the word "color", and without the preposition of "of red color" and "in the color red"."""
    others: list[str] = []
    for word in tokens:
        if word not in COLOR_NOUNS:
            others.append(word)
            continue
        phrase = range(max(0, len(others) - 3), len(others))
        if prepositions := [index for index in phrase if others[index] in ("of", "in")]:
            del others[prepositions[-1]]
    return others


def split_colors(
    tokens: Sequence[str], mentions: Sequence[Mention], subject: Mention | None
) -> tuple[list[Mention], list[Mention]]:
    """All mentions but colors of unknown things next to a known object, as in "under white clouds"; and those."""
    known_indices = {index for one in mentions for index in range(one.start, one.end)}
    foreign = []
    for one in (one for one in mentions if one.kind == "color" and subject):
        word = tokens[one.end] if one.end < len(tokens) and one.end not in known_indices else ","
        is_unknown = word not in FILLER | BREAKS | COUNTS | NEGATIONS | {*CAMERA}
        nouns = [noun for noun in mentions if noun.kind in NOUNS and noun.start >= one.end]
        if any(noun.kind == "weather" and noun.start == one.end for noun in mentions) or (
            is_unknown
            and _begins_phrase(tokens, one.start)
            and not any(_reaches(tokens, one.end, noun.start) for noun in nouns)
        ):
            foreign.append(one)
    return [one for one in mentions if one not in foreign], foreign


def _begins_phrase(tokens: Sequence[str], place: int) -> bool:
    """Whether a noun phrase can begin at a token: after a preposition, a break or nothing, articles ignored."""
    before = [word for word in tokens[:place] if word not in ARTICLES | COUNTS][-1:]
    return not before or before[0] in PREPOSITIONS | BREAKS | {"with", "and", "behind", "beneath", "between", "through"}


def split_sky_colors(tokens: Sequence[str], mentions: Sequence[Mention]) -> tuple[list[Mention], list[Mention]]:
    """All mentions but colors of the sky, as in "under a purple sky" and "at a red sunset"; and those."""
    of_sky = [one for one in mentions if one.kind == "color" and _is_of_sky(tokens, mentions, one)]
    return [one for one in mentions if one not in of_sky], of_sky


def _is_of_sky(tokens: Sequence[str], mentions: Sequence[Mention], color: Mention) -> bool:
    """Whether a color stands before or after the word "sky", or before a time of day that follows a preposition."""
    if tuple(tokens[max(0, color.start - 2) : color.start]) in (("sky", "is"), ("skies", "are")):
        return True
    nouns = {noun.start: noun.kind for noun in mentions if noun.kind in NOUNS and noun.start >= color.end}
    nouns |= {i: "sky" for i in range(color.end, len(tokens)) if tokens[i] in SKY and i not in nouns}
    place = min(nouns, default=len(tokens) + REACH)
    is_time = nouns.get(place) == "time of day" and _follows_preposition(tokens, color.start)
    return (nouns.get(place) == "sky" or is_time) and _reaches(tokens, color.end, place)


def sort_colors(
    tokens: Sequence[str], mentions: Sequence[Mention], subject: Mention | None
) -> tuple[list[Mention], list[Mention]]:
    """Colors that can belong to the object, likeliest first, and those of the ground; others are dropped."""
    by_rank, of_ground, noun = list[tuple[int, int, Mention]](), list[Mention](), None
    for mention in sorted(mentions, key=lambda mention: -mention.start):
        if mention.kind in NOUNS:
            noun = mention
        if mention.kind != "color":
            continue
        owner = noun if noun and _reaches(tokens, mention.end, noun.start) else None
        if owner is None or (subject and owner.kind == "object" and owner.meaning == subject.meaning):
            by_rank.append((1 if owner is None else 0, mention.start, mention))
        elif owner.kind != "object" and _follows_preposition(tokens, mention.start):
            of_ground.append(mention)
        elif owner.kind != "object":
            by_rank.append((2, mention.start, mention))
    return [mention for _, _, mention in sorted(by_rank, key=lambda row: row[:2])], of_ground[::-1]


def _reaches(tokens: Sequence[str], end: int, noun: int) -> bool:
    """Whether an adjective that ends before one token can belong to the noun at another."""
    return noun - end <= REACH and not BREAKS.union(PREPOSITIONS).intersection(tokens[end:noun])


def _follows_preposition(tokens: Sequence[str], place: int) -> bool:
    """Whether a token follows a preposition, ignoring articles."""
    before = [word for word in tokens[max(0, place - 2) : place] if word not in ("a", "an", "the")]
    return bool(before) and before[-1] in PREPOSITIONS


def nearest_color(slots: dict[str, Mention]) -> list[str]:
    """A message if a prompt asks for a color that pocket does not have."""
    color = slots.get("color")
    lacking = color and color.typed in NEAREST_COLORS.get(color.phrase, "").split(", ")
    return [f"{color.phrase}, the color nearest to {color.typed}"] if color and lacking else []
