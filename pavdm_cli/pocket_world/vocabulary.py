"""The words the pocket model knows, in one place: what each means, and how a caption becomes numbers."""

from __future__ import annotations

import re

TERRAINS = ("hills", "mountains", "dunes", "sea")
TIMES = ("day", "dawn", "sunset", "night")
OBJECTS = ("ball", "balloon", "kite", "boat")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
MOTIONS = ("drifting", "bouncing", "circling", "hovering")
CAMERAS = ("still", "left", "right")

ON_WATER = ("drifting", "bouncing", "hovering")  # what a boat can do

Wordings = dict[str, tuple[str, ...]]

# Each meaning with every wording training shows; captions are drawn from here, and `models show pocket` prints it.
TERRAIN_WORDINGS: Wordings = {
    "hills": ("green hills", "rolling hills", "hills", "meadows"),
    "mountains": ("mountains", "tall mountains", "blue mountains", "mountain peaks"),
    "dunes": ("sand dunes", "golden dunes", "dunes", "the desert"),
    "sea": ("the sea", "the ocean", "the blue sea", "calm water"),
}
TIME_WORDINGS: Wordings = {
    "day": ("by day", "on a sunny day", "at noon", "in daylight"),
    "dawn": ("at dawn", "at sunrise", "early in the morning"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "under the moon", "in the moonlight"),
}
OBJECT_WORDINGS: Wordings = {
    "ball": ("ball",),
    "balloon": ("balloon", "hot air balloon"),
    "kite": ("kite", "paper kite"),
    "boat": ("boat", "sailboat", "sailing boat"),
}
COLOUR_WORDINGS: Wordings = {
    "red": ("red", "crimson"),
    "yellow": ("yellow", "bright yellow"),
    "green": ("green", "bright green"),
    "blue": ("blue", "bright blue"),
    "purple": ("purple", "violet"),
    "white": ("white", "snow white"),
}
MOTION_WORDINGS: Wordings = {
    "drifting": ("drifting", "gliding", "floating"),
    "bouncing": ("bouncing", "bobbing", "hopping"),
    "circling": ("circling", "flying in circles", "looping"),
    "hovering": ("hovering", "resting", "hanging still"),
}
CAMERA_WORDINGS: Wordings = {
    "still": ("", "", "still camera", "the camera is still", "static camera"),
    "left": ("the camera pans left", "panning left", "the camera moves left"),
    "right": ("the camera pans right", "panning right", "the camera moves right"),
}
WORDINGS: dict[str, Wordings] = {
    "terrain": TERRAIN_WORDINGS,
    "time of day": TIME_WORDINGS,
    "object": OBJECT_WORDINGS,
    "colour": COLOUR_WORDINGS,
    "motion": MOTION_WORDINGS,
    "camera": CAMERA_WORDINGS,
}
GLUE = ("a", "an", "the", "over", "above", "across", "on", "in", "at", "by", "of", "with", "and", "is", "video")

PAD = 0
LENGTH = 24  # words a prompt can hold
NAMED = 24  # words that a note names
LONGEST_SHOWN = 100  # characters of each


def split(text: str) -> list[str]:
    """Lower-case words and numbers, in any script, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def _all_words() -> list[str]:
    phrases = [p for table in WORDINGS.values() for group in table.values() for p in group]
    return sorted({word for phrase in [*phrases, *GLUE] for word in split(phrase)})


VOCABULARY = {word: index for index, word in enumerate(_all_words(), start=1)}  # 0 is padding


def tokens(text: str) -> list[int]:
    """The known words of a prompt as numbers, in order, at most LENGTH of them."""
    return [VOCABULARY[word] for word in split(text) if word in VOCABULARY][:LENGTH]


def some(words: list[str], between: str) -> str:
    """The first words, long ones cut, and how many more there are: a line stays a line."""
    more = len(words) - NAMED
    shown = [word if len(word) <= LONGEST_SHOWN else f"{word[:LONGEST_SHOWN]}..." for word in words[:NAMED]]
    return between.join(shown) + (f" ... ({more} more)" if more > 0 else "")
