"""Synonyms that prompts may use, under the phrase of captions that they stand for."""

from __future__ import annotations

# Verbs are in their base form and nouns in the singular: `mentions.base_forms` undoes inflections.
SYNONYMS: dict[str, dict[str, str]] = {
    "terrain": {
        "hills": "hill, valley, countryside, highland, slope",
        "meadows": "meadow, grass, grassland, field, lawn, pasture, park, garden, prairie",
        "mountains": "mountain, alps, ridge, cliff, volcano, snowy mountain, snow capped mountain",
        "mountain peaks": "peak, summit, mountain top, mountaintop",
        "sand dunes": "dune, sand",
        "golden dunes": "golden sand",
        "the desert": "desert, sahara",
        "the sea": "sea, see, coast, shore, beach, sandy beach, seaside, seashore, coastline, bay, wave",
        "the ocean": "ocean, pacific, atlantic",
        "the blue sea": "blue sea, blue ocean, blue water",
        "calm water": "water, harbour, harbor, lake, pond, river, lagoon, calm sea, calm ocean",
        "snowy fields": "snowy, snowy field, snowy hill, snow covered field, snow covered hill, white field, tundra",
        "the snow": "snow, snowy forest, fir, fir tree, pine, pine tree, pine forest, ice, glacier, arctic",
        "a snowy plain": "snowy plain, snowy meadow, snowy landscape, snow covered plain",
        "winter fields": "winter, wintry, winter field, winter landscape, winter scene, winter day",
        "the city": "city, downtown, metropolis, street, urban, new york, london, paris, tokyo",
        "the city skyline": "skyline, rooftop, roof",
        "tall buildings": "building, tall building, skyscraper, tower, high rise, tower block, house",
        "a big town": "town, big city, big town",
    },
    "time of day": {
        "by day": "day, daytime, afternoon, blue sky",
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
        "airplane": "aeroplane, aircraft, airliner, passenger plane",
        "jet": "jet plane, jetliner, jumbo jet, passenger jet",
        "rocket": "missile, spacecraft, spaceship, space ship, rocket ship, shuttle, space shuttle",
        "bird": "sparrow, dove, pigeon, crow, raven, eagle, hawk, falcon, owl, parrot, seagull, gull, bluebird",
        "songbird": "robin, canary, finch, nightingale, blackbird",
        "butterfly": "papillon",
        "airship": "dirigible, air ship",
        "flying saucer": "saucer, flying disc, flying disk, alien ship, alien spaceship, alien spacecraft, alien",
        "umbrella": "brolly",
        "parasol": "sunshade, beach umbrella",
        "rubber duck": "rubber ducky, rubber duckie, bath duck",
        "duck": "duckling, ducky, goose, geese, swan",
    },
    "color": {
        "red": "scarlet, ruby, reddish",
        "crimson": "maroon, dark red",
        "yellow": "gold, golden, amber, lemon, yellowish",
        "green": "emerald, greenish, dark green, olive",
        "bright green": "lime, light green",
        "blue": "navy, bluish, dark blue, sapphire",
        "bright blue": "azure, light blue, sky blue",
        "purple": "lilac, indigo, mauve, purplish, dark purple",
        "violet": "lavender",
        "white": "ivory, whitish",
        "snow white": "snowwhite",
        "orange": "tangerine, apricot, dark orange",
        "pink": "rose, rosy, magenta, light pink, pinkish",
        "bright pink": "hot pink, fuchsia",
        "turquoise": "cyan, aqua, aquamarine, blue green",
        "brown": "brownish, hazel, coffee, light brown",
        "chestnut": "chocolate, dark brown",
    },
    "motion": {
        "drifting": "drift, move, travel, roll, blow, wander, cruise, pass, cross",
        "gliding": "glide, sail, sailing, fly, flying, flew, flown, soar, slide, slid, flap, flutter",
        "floating": "float, swim, swam, paddle",
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
    "weather": {
        "": "clear, clear sky, clear weather, cloudless, cloudless sky",
        "under a cloudy sky": "cloudy, cloudy sky, overcast, grey sky, gray sky, cloudy weather",
        "with clouds in the sky": "cloud, clouds in the sky",
        "under big clouds": "big cloud",
        "in the rain": "rain, drizzle, shower, downpour, raindrop",
        "while it rains": "it rains, it is raining",
        "in rainy weather": "rainy, rainy weather, wet weather, storm, stormy, thunderstorm, rainstorm, bad weather",
        "while it snows": "it snows, it is snowing, snowing, snow falls, snow is falling",
        "in falling snow": "falling snow, snowflake, snow flake",
        "in a snowfall": "snowfall, snowstorm, blizzard, snowy weather, snowy day, snow shower",
    },
}

# Colors that pocket does not have, under the phrase of the nearest one that it has.
NEAREST_COLORS = {
    "yellow": "khaki",
    "orange": "peach, copper",
    "pink": "salmon, coral",
    "brown": "black, bronze, tan, rust, sepia",
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
        *("apps", "atlanta", "baby", "back", "bald", "baseball", "bat", "beat", "bell", "bench", "bid", "bill"),
        *("binding", "blank", "bleach", "blew", "block", "blog", "blush", "boast", "bolt", "bomb", "boot", "bow"),
        *("breach", "brow", "bull", "burning", "call", "cast", "castle", "ceiling", "chopper", "clean", "clearly"),
        *("coal", "coat", "cooper", "cost", "cow", "crew", "crop", "crowd", "crown", "cruiser", "damn", "dare"),
        *("deck", "desk", "desperate", "dessert", "disk", "dive", "dock", "dome", "done", "dose", "draft", "drawn"),
        *("driving", "drove", "dude", "due", "duke", "dunk", "dust", "fair", "few", "filed", "fire", "firm"),
        *("flag", "flat", "fling", "flip", "flow", "glass", "glider", "god", "golf", "good", "grab", "gravy"),
        *("greek", "greet", "grew", "gross", "guide", "gulf", "hall", "hand", "haze", "hearing", "hell", "hope"),
        *("horse", "hose", "however", "hunt", "jest", "kit", "lane", "lap", "late", "law", "lead", "leaf", "lean"),
        *("lied", "life", "like", "line", "live", "look", "looking", "math", "mode", "mole", "month", "mood"),
        *("more", "motor", "mourning", "mouth", "mover", "nigh", "non", "pack", "painting", "pairs", "pane"),
        *("parish", "part", "parts", "pays", "peace", "pear", "pick", "pie", "pile", "pin", "pipe", "place"),
        *("plan", "planet", "plank", "planned", "plans", "plant", "plate", "pleasure", "pod", "pony", "pound"),
        *("puddle", "punk", "rail", "ran", "read", "reed", "rent", "reset", "resolve", "resulting", "revolver"),
        *("ride", "rider", "rise", "robe", "role", "rome", "room", "root", "rope", "rouse", "rugby", "ruin"),
        *("rush", "rusty", "sad", "said", "salon", "sauce", "say", "scope", "score", "seal", "seat", "seed"),
        *("seek", "seem", "send", "share", "shoe", "shop", "short", "shorter", "showed", "showing", "side", "sill"),
        *("silvery", "sin", "site", "ski", "skill", "skin", "sled", "slider", "slim", "slip", "slow", "smiling"),
        *("snail", "soap", "soil", "solar", "solid", "sonar", "sore", "spain", "spine", "spring", "stair", "stare"),
        *("stark", "start", "station", "stealing", "store", "stork", "story", "strand", "stray", "submit", "suit"),
        *("surprise", "swamp", "swarm", "tank", "tea", "team", "tear", "tell", "than", "ton", "violent", "wage"),
        *("waist", "waiter", "wake", "want", "weave", "wind", "winner", "wonder", "write"),
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
