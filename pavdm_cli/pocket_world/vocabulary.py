"""The words that pocket knows: their meanings, and their token ids."""

from __future__ import annotations

import re

TERRAINS = ("hills", "mountains", "dunes", "sea", "snow", "city")
TIMES = ("day", "dawn", "sunset", "night")
OBJECTS = (
    *("ball", "balloon", "kite", "boat", "airplane", "rocket", "bird", "butterfly"),
    *("airship", "ufo", "umbrella", "duck"),
)
COLORS = ("red", "yellow", "green", "blue", "purple", "white", "orange", "pink", "turquoise", "brown")
MOTIONS = ("drifting", "bouncing", "circling", "hovering")
CAMERAS = ("still", "left", "right")
WEATHERS = ("clear", "clouds", "rain", "snowfall")

AFLOAT = ("boat", "duck")  # on the sea, nowhere else
ON_WATER = ("drifting", "bouncing", "hovering")  # what they can do

Phrases = dict[str, tuple[str, ...]]

# Each meaning with all its phrases in training captions; `models show pocket` prints them.
TERRAIN_PHRASES: Phrases = {
    "hills": ("green hills", "rolling hills", "hills", "meadows"),
    "mountains": ("mountains", "tall mountains", "blue mountains", "mountain peaks"),
    "dunes": ("sand dunes", "golden dunes", "dunes", "the desert"),
    "sea": ("the sea", "the ocean", "the blue sea", "calm water"),
    "snow": ("snowy fields", "the snow", "a snowy plain", "winter fields"),
    "city": ("the city", "the city skyline", "tall buildings", "a big town"),
}
TIME_PHRASES: Phrases = {
    "day": ("by day", "on a sunny day", "at noon", "in daylight"),
    "dawn": ("at dawn", "at sunrise", "early in the morning"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "under the moon", "in the moonlight"),
}
OBJECT_PHRASES: Phrases = {
    "ball": ("ball",),
    "balloon": ("balloon", "hot air balloon"),
    "kite": ("kite", "paper kite"),
    "boat": ("boat", "sailboat", "sailing boat"),
    "airplane": ("airplane", "plane", "jet"),
    "rocket": ("rocket", "space rocket"),
    "bird": ("bird", "songbird"),
    "butterfly": ("butterfly", "moth"),
    "airship": ("airship", "zeppelin", "blimp"),
    "ufo": ("flying saucer", "ufo"),
    "umbrella": ("umbrella", "parasol"),
    "duck": ("rubber duck", "duck", "toy duck"),
}
COLOR_PHRASES: Phrases = {
    "red": ("red", "crimson"),
    "yellow": ("yellow", "bright yellow"),
    "green": ("green", "bright green"),
    "blue": ("blue", "bright blue"),
    "purple": ("purple", "violet"),
    "white": ("white", "snow white"),
    "orange": ("orange", "bright orange"),
    "pink": ("pink", "bright pink"),
    "turquoise": ("turquoise", "teal"),
    "brown": ("brown", "chestnut"),
}
MOTION_PHRASES: Phrases = {
    "drifting": ("drifting", "gliding", "floating"),
    "bouncing": ("bouncing", "bobbing", "hopping"),
    "circling": ("circling", "flying in circles", "looping"),
    "hovering": ("hovering", "resting", "hanging still"),
}
CAMERA_PHRASES: Phrases = {
    "still": ("", "", "still camera", "the camera is still", "static camera"),
    "left": ("the camera pans left", "panning left", "the camera moves left"),
    "right": ("the camera pans right", "panning right", "the camera moves right"),
}
WEATHER_PHRASES: Phrases = {
    "clear": ("",),
    "clouds": ("under a cloudy sky", "with clouds in the sky", "under big clouds"),
    "rain": ("in the rain", "while it rains", "in rainy weather"),
    "snowfall": ("while it snows", "in falling snow", "in a snowfall"),
}
PHRASES: dict[str, Phrases] = {
    "terrain": TERRAIN_PHRASES,
    "time of day": TIME_PHRASES,
    "object": OBJECT_PHRASES,
    "color": COLOR_PHRASES,
    "motion": MOTION_PHRASES,
    "weather": WEATHER_PHRASES,
    "camera": CAMERA_PHRASES,
}
GLUE = ("a", "an", "the", "over", "above", "across", "on", "in", "at", "by", "of", "with", "and", "is", "video")

PAD = 0
LENGTH = 28  # tokens of the longest prompt
NAMED = 24  # words that a note lists
LONGEST_SHOWN = 100  # characters of each


def split(text: str) -> list[str]:
    """Lower-case words and numbers, in any script, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def _all_words() -> list[str]:
    phrases = [p for meanings in PHRASES.values() for group in meanings.values() for p in group]
    return sorted({word for phrase in [*phrases, *GLUE] for word in split(phrase)})


VOCABULARY = {word: index for index, word in enumerate(_all_words(), start=1)}  # 0 is padding


def tokens(text: str) -> list[int]:
    """Token ids of the known words of a prompt, in order, at most LENGTH."""
    return [VOCABULARY[word] for word in split(text) if word in VOCABULARY][:LENGTH]


def shorten(words: list[str], between: str) -> str:
    """The first words, long ones truncated, and the number of the others: fits into one line."""
    more = len(words) - NAMED
    listed = [word if len(word) <= LONGEST_SHOWN else f"{word[:LONGEST_SHOWN]}..." for word in words[:NAMED]]
    return between.join(listed) + (f" ... ({more} more)" if more > 0 else "")
