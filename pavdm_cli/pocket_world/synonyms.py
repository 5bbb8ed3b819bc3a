"""Synonyms that prompts may use, under the phrase of captions that they stand for."""

from __future__ import annotations

# Verbs are in their base form and nouns in the singular: `parse.base_forms` undoes inflections.
SYNONYMS: dict[str, dict[str, str]] = {
    "terrain": {
        "hills": "hill, valley, countryside, highland, slope",
        "meadows": "meadow, grass, grassland, field, lawn, pasture, park, garden, prairie",
        "mountains": "mountain, alps, ridge, cliff, volcano",
        "mountain peaks": "peak, summit, mountain top, mountaintop",
        "sand dunes": "dune, sand",
        "golden dunes": "golden sand",
        "the desert": "desert, sahara",
        "the sea": "sea, see, coast, shore, beach, sandy beach, seaside, seashore, coastline, bay, wave",
        "the ocean": "ocean, pacific, atlantic",
        "the blue sea": "blue sea, blue ocean, blue water",
        "calm water": "water, harbour, harbor, lake, pond, river, lagoon, calm sea, calm ocean",
    },
    "time of day": {
        "by day": "day, daytime, afternoon, blue sky, clear sky",
        "on a sunny day": "sunny day, sunny, sunshine, sunlight, summer day, in the sun, under the sun",
        "at noon": "noon, midday, noontime",
        "in daylight": "daylight, broad daylight",
        "at dawn": "dawn, daybreak, first light",
        "at sunrise": "sunrise, sunup, rising sun, sun rise",
        "early in the morning": "morning, early morning, in the morning",
        "at sunset": "sunset, sundown, setting sun, sun set, golden hour",
        "at dusk": "dusk, twilight",
        "in the evening": "evening, early evening",
        "at night": "night, nighttime, midnight, tonight, nightfall, night sky, star, starry, darkness, dark",
        "under the moon": "moon, full moon",
        "in the moonlight": "moonlight, moonlit",
    },
    "object": {
        "ball": "beach ball, beachball, football, basketball, soccer ball, orb, sphere, globe, bubble",
        "balloon": "air balloon",
        "hot air balloon": "hot balloon",
        "kite": "diamond kite",
        "boat": "ship, vessel, dinghy",
        "sailboat": "yacht, sailing ship, sailing yacht, sail boat, schooner",
    },
    "colour": {
        "red": "scarlet, ruby, reddish",
        "crimson": "maroon, dark red",
        "yellow": "gold, golden, amber, lemon, yellowish",
        "green": "emerald, greenish, dark green, olive",
        "bright green": "lime, light green",
        "blue": "navy, bluish, dark blue, sapphire",
        "bright blue": "azure, cyan, turquoise, teal, light blue, sky blue",
        "purple": "lilac, indigo, mauve, purplish",
        "violet": "lavender, magenta",
        "white": "ivory, whitish",
        "snow white": "snowwhite",
    },
    "motion": {
        "drifting": "drift, move, travel, roll, blow, wander, cruise, pass, cross",
        "gliding": "glide, sail, sailing, fly, flying, flew, flown, soar, slide, slid",
        "floating": "float, swim",
        "bouncing": "bounce, jump, leap, dribble",
        "bobbing": "bob, up and down, move up and down",
        "hopping": "hop, skip",
        "circling": "circle, in a circle, in circles, orbit, revolve, rotate, spin, whirl, move in circles",
        "flying in circles": "fly in circles, fly in a circle, fly around, fly round",
        "looping": "loop, in loops, fly in loops, fly loops",
        "hovering": "hover, float still, float in place, stand, stood, stand still, stay, motionless, stationary",
        "resting": "rest, lie, lying, sit, anchor, moor, wait",
        "hanging still": "hang, hung, hang in the air, levitate, still",
    },
}

# Colors that pocket does not have, under the phrase of the nearest one that it has.
NEAREST_COLOURS = {
    "red": "brown, rust",
    "yellow": "orange, bronze, tan",
    "blue": "black",
    "purple": "pink, rose",
    "white": "grey, gray, silver, beige",
}
# Words without a meaning of their own here, which notes do not mention.
FILLER = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "some", "one", "it", "its", "my", "our", "your", "s"),
        *("there", "here", "and", "or", "with", "without", "as", "while", "during", "very", "please", "sky", "air"),
        *("of", "in", "on", "at", "by", "to", "from", "over", "above", "across", "under", "below", "near", "along"),
        *("around", "through", "into", "onto", "past", "is", "are", "was", "were", "be", "being", "can", "could"),
        *("i", "we", "you", "they", "he", "she", "us", "me", "let", "see", "sees", "seen", "seeing", "saw", "up"),
        *("show", "make", "create", "generate", "draw", "render", "video", "clip", "movie", "film", "scene", "down"),
        *("picture", "image", "animation", "view", "shot", "colored", "coloured"),
    )
)
# English words that differ from a known one by a letter, and are no slips for it.
EVERYDAY = frozenset(
    (
        *("bald", "bell", "bill", "bolt", "boot", "bull", "call", "castle", "good", "greet", "guide", "hall", "hell"),
        *("kit", "looped", "mood", "movie", "part", "past", "pod", "read", "rise", "sad", "seal", "seat", "side"),
        *("site", "spring", "while", "wind", "write", "painting"),
    )
)
NEGATIONS = frozenset(("no", "not", "without", "never", "neither", "nor"))
COUNTS = frozenset(("two", "three", "four", "five", "many", "several", "both", "2", "3", "4", "5"))
LOOKING = frozenset(("i", "we", "you", "they", "can", "could", "to", "us", "me"))  # "we see" is no slip for "sea"

# "left", "right" and "still" are of the camera only near one of its words.
CAMERA = ("camera", "pan", "view", "shot")
CAMERA_WORDS = {"left": "left", "right": "right"} | dict.fromkeys(
    ("still", "static", "fixed", "steady", "stationary", "motionless", "no", "not", "without"), "still"
)
CAMERA_FILLER = (
    "to",
    "the",
    "is",
    "does",
    "move",
    "movement",
    "motion",
    "slide",
    "turn",
    "go",
    "sweep",
    "slowly",
    "stay",
)
PREPOSITIONS = frozenset(("over", "above", "across", "on", "in", "at", "by", "near", "along", "under", "of"))
