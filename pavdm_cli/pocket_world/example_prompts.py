"""Example prompts for `pavdm models show`: three for every kind of object."""

from __future__ import annotations

from pavdm_cli.pocket_world.prompt import preposition, with_article
from pavdm_cli.pocket_world.vocabulary import AFLOAT, OBJECT_PHRASES

ASHORE = (  # color, motion, place, time of day, and what may follow
    ("red", "drifting", "green hills", "at sunset", ", the camera pans left"),
    ("yellow", "circling", "the city", "at night", ""),
    ("turquoise", "bouncing", "sand dunes", "by day", " under a cloudy sky"),
    ("blue", "hovering", "snowy fields", "at dawn", ", panning right"),
    ("pink", "gliding", "mountains", "in the moonlight", ""),
    ("orange", "floating", "the sea", "as the sun sets", ""),
    ("white", "looping", "the city skyline", "in the evening", " in the rain"),
    ("purple", "drifting", "winter fields", "by day", " while it snows"),
    ("brown", "hopping", "the desert", "as day breaks", ""),
    ("green", "flying in circles", "tall mountains", "at noon", ", the camera moves right"),
)
ON_THE_SEA = (
    ("white", "bobbing", "the sea", "at night", ""),
    ("yellow", "drifting", "calm water", "by day", " in the rain"),
    ("red", "resting", "the ocean", "as the sun sets", ", the camera pans left"),
)


def example_prompts(count: int = 3) -> dict[str, list[str]]:
    """Prompts for every kind of object."""
    prompts = dict[str, list[str]]()
    for number, (kind, phrases) in enumerate(OBJECT_PHRASES.items()):
        rows = ON_THE_SEA if kind in AFLOAT else ASHORE
        choices = [(rows[(count * number + i) % len(rows)], phrases[i % len(phrases)]) for i in range(count)]
        prompts[kind] = [_prompt(kind, phrase, *row) for row, phrase in choices]
    return prompts


def _prompt(kind: str, phrase: str, color: str, motion: str, place: str, time: str, rest: str) -> str:
    where = preposition(kind, "drifting")
    return f"{with_article(f'{color} {phrase}')} {motion} {where} {place} {time}{rest}"
