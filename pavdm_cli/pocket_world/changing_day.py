"""A time of day that changes while a video runs, for prompts like "a boat as the sun sets"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.vocabulary import TIME_PHRASES

STARTS = (0.0, 12.0, 30.0)  # seconds at which the stages begin
ENDS, BEGINS = ("day", "sunset", "night"), ("night", "dawn", "day")
_WHILE = r"(?:and then|and|then|as|while|when|until|before) (?:the )?"
_DARK = r"(?:night|nighttime|evening|dusk|darkness|sunset)"
_LIGHT = r"(?:day|daylight|daytime|dawn|morning|sunrise)"
_COMES = r"(?:falls|is falling|comes|is coming|approaches|arrives|sets in)"
_CHANGES = r"(?:slowly )?(?:turns|turning|changes|changing|fades|fading|becomes|becoming|passes|passing|gives way)"
PATTERNS: dict[tuple[str, ...], tuple[str, ...]] = {
    ENDS: (
        rf"{_WHILE}sun (?:slowly )?(?:sets|is setting|goes down|is going down|sinks|is sinking|dips)",
        rf"{_WHILE}{_DARK} (?:slowly )?{_COMES}",
        rf"{_WHILE}(?:it|sky) (?:slowly )?(?:gets|is getting|grows|is growing|becomes|turns|goes) dark(?:er)?",
        rf"{_WHILE}(?:day|daylight|light) (?:slowly )?(?:ends|is ending|fades|is fading)",
        rf"(?:(?:as|while|and|from) )?(?:the )?{_LIGHT} (?:{_CHANGES} )?(?:in)?to (?:the )?{_DARK}",
    ),
    BEGINS: (
        rf"{_WHILE}sun (?:slowly )?(?:rises|is rising|comes up|is coming up|goes up|is going up)",
        rf"{_WHILE}{_LIGHT} (?:slowly )?(?:breaks|is breaking|comes|is coming|approaches|arrives|begins|dawns)",
        rf"{_WHILE}(?:it|sky) (?:slowly )?(?:gets|is getting|grows|is growing|becomes|turns) (?:light|bright)(?:er)?",
        rf"{_WHILE}night (?:slowly )?(?:ends|is ending)",
        rf"(?:(?:as|while|and|from) )?(?:the )?{_DARK} (?:{_CHANGES} )?(?:in)?to (?:the )?{_LIGHT}",
    ),
}


@dataclass(frozen=True, slots=True)
class ChangingDay:
    """A prompt at its first time of day, and the times of day that follow, each with its start in seconds."""

    text: str
    later: tuple[tuple[float, str], ...] = ()


def split_day(text: str) -> ChangingDay:
    """What a prompt says at its start, and when the time of day changes; `text` itself where it does not.

    A prompt that names a time of day begins there: "at sunset, as night falls".
    """
    for stages, patterns in PATTERNS.items():
        match = re.search(rf"\b(?:{'|'.join(patterns)})\b", text, re.IGNORECASE)
        if not match:
            continue
        rest = f"{text[: match.start()]} {text[match.end() :]}"
        mention = parse(rest).slots.get("time of day")
        if not mention:
            start = f"{text[: match.start()]}{TIME_PHRASES[stages[0]][0]}{text[match.end() :]}"
            return ChangingDay(start, tuple(zip(STARTS[1:], stages[1:], strict=True)))
        if mention.meaning in stages[:-1]:
            stages = stages[stages.index(mention.meaning) :]
            return ChangingDay(rest, tuple(zip(STARTS[1:], stages[1:], strict=False)))
    return ChangingDay(text)
