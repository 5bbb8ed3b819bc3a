"""Prompts of the embedded model: read in any words, filled in from the seed, and rebuilt as a training caption."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.mentions import DRAWN, KINDS, base_forms
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.prompt import HINT, format_prompt, vocabulary
from pavdm_cli.pocket_world.synonyms import SYNONYMS
from pavdm_cli.pocket_world.vocabulary import AFLOAT, LENGTH, ON_WATER, PHRASES, split, tokens
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.training.pocket.preview import PROMPTS

FIELDS = dict(zip(KINDS, ("object", "color", "motion", "terrain", "time", "weather", "camera"), strict=True))
SHORT = ("a boat", "a red ball", "a kite", "night", "over the dunes", "circling", "a boat at dusk", "blue", "pans left")
SHORT += ("a duck", "an orange ufo", "snow", "a bird in the rain")


def meanings(text: str) -> dict[str, str]:
    return parse(text).meanings()


def truth(scene: Scene) -> dict[str, str]:
    return {kind: getattr(scene, field) for kind, field in FIELDS.items()}


def notes(text: str, seed: int = 1, source: str = "") -> str:
    return "\n".join(format_prompt(text, seed, source).notes)


def test_training_captions_are_read_as_their_scenes():
    for seed in range(600):
        scene, text = sample_scene(seed), caption(sample_scene(seed), random.Random(seed))
        said, true = meanings(text), truth(scene)
        assert {"camera": "still", "weather": "clear", "motion": scene.motion} | said == true, text
        assert parse(text).unused_words == parse(text).notes == (), text


def test_a_full_caption_reaches_the_encoder_unchanged():
    for seed in range(600):
        text = caption(sample_scene(seed), random.Random(seed))
        if "motion" in meanings(text):
            assert format_prompt(text, seed + 5).text == text
            assert format_prompt(text, seed, "a white kite hovering above hills at night, panning left").text == text


@pytest.mark.parametrize("text", PROMPTS)
def test_a_full_prompt_gives_no_note(text):
    assert format_prompt(text, 3).notes == ()


@pytest.mark.parametrize("text", SHORT)
def test_a_short_prompt_becomes_a_caption_that_training_can_draw(text):
    for seed in range(25):
        full = format_prompt(text, seed).text
        found = meanings(full)
        assert found.keys() >= {*DRAWN}
        assert meanings(text).items() <= found.items()
        assert found["object"] not in AFLOAT or (found["terrain"] == "sea" and found["motion"] in ON_WATER)
        assert format_prompt(full, seed + 1).text == full
        assert len(tokens(full)) == len(split(full)) <= LENGTH


def test_what_is_filled_in_depends_on_the_seed_alone_and_takes_every_value():
    state = random.getstate()
    drawn = [meanings(format_prompt("a ball", seed).text) for seed in range(400)]
    assert random.getstate() == state
    assert [meanings(format_prompt("a ball", seed).text) for seed in range(400)] == drawn
    for kind in ("color", "motion", "terrain", "time of day"):
        counts = Counter(found[kind] for found in drawn)
        assert counts.keys() == PHRASES[kind].keys()
        assert min(counts.values()) > 400 / len(counts) / 2
    assert {meanings(format_prompt("night", seed).text)["object"] for seed in range(60)} == PHRASES["object"].keys()
    assert format_prompt("a boat", 7).text == "a brown boat bobbing on the sea at sunset"  # the same on every machine


def test_naming_one_thing_does_not_change_what_is_filled_in_for_the_rest():
    for seed in range(40):
        less, more = (meanings(format_prompt(text, seed).text) for text in ("a kite", "a red kite at dawn"))
        assert (less["motion"], less["terrain"]) == (more["motion"], more["terrain"])


def test_a_camera_that_is_not_mentioned_stays_so():
    assert all("camera" not in meanings(format_prompt("a kite", seed).text) for seed in range(30))


def test_one_note_says_what_is_left_out_and_the_caption_that_is_read():
    prompt = format_prompt("a red boat at night", 4)
    assert len(prompt.notes) == 1
    assert prompt.notes[0] == f'the prompt leaves out motion and place; filled in from the seed: "{prompt.text}"'
    assert "leaves out object, color, motion and time of day;" in notes("over the sea")


@pytest.mark.parametrize(
    ("text", "kind", "meaning"),
    [
        ("boats", "object", "boat"),
        ("two Balls", "object", "ball"),
        ("hot-air balloons", "object", "balloon"),
        ("kites flying", "object", "kite"),
        ("a ship", "object", "boat"),
        ("an orb", "object", "ball"),
        ("the ball's shadow", "object", "ball"),
        ("a ball bounces", "motion", "bouncing"),
        ("it bounced", "motion", "bouncing"),
        ("a ball hopped", "motion", "bouncing"),
        ("a kite circled", "motion", "circling"),
        ("a kite flies in circles", "motion", "circling"),
        ("kites flying", "motion", "drifting"),
        ("boats sail", "motion", "drifting"),
        ("it stands still", "motion", "hovering"),
        ("on the see", "terrain", "sea"),
        ("at the beach", "terrain", "sea"),
        ("oceans", "terrain", "sea"),
        ("mountain", "terrain", "mountains"),
        ("a dune", "terrain", "dunes"),
        ("in the meadow", "terrain", "hills"),
        ("dusk", "time of day", "sunset"),
        ("one evening", "time of day", "sunset"),
        ("midnight", "time of day", "night"),
        ("noon", "time of day", "day"),
        ("in the morning", "time of day", "dawn"),
        ("a scarlet ball", "color", "red"),
        ("the camera slowly moves to the left", "camera", "left"),
        ("camera panned right", "camera", "right"),
        ("a static shot", "camera", "still"),
        ("no camera movement", "camera", "still"),
    ],
)
def test_plurals_inflections_and_synonyms_are_read(text, kind, meaning):
    assert meanings(text)[kind] == meaning


@pytest.mark.parametrize("table", [*SYNONYMS.items()], ids=lambda item: item[0])
def test_every_wording_and_synonym_means_one_thing(table):
    kind, synonyms = table
    for wording in (wording for group in PHRASES[kind].values() for wording in group):
        for phrase in filter(None, (wording, *synonyms.get(wording, "").split(", "))):
            meaning = next(meaning for meaning, group in PHRASES[kind].items() if wording in group)
            assert meanings(phrase) == {kind: meaning}, phrase
    listed = [phrase for kinds in SYNONYMS.values() for line in kinds.values() for phrase in line.split(", ")]
    assert len(listed) == len(set(listed))
    assert synonyms.keys() <= {wording for group in PHRASES[kind].values() for wording in group}


def test_every_meaning_has_synonyms_and_stands_in_the_list():
    rows = vocabulary()
    assert [row[1] for row in rows] == [meaning for kind in KINDS for meaning in PHRASES[kind]]
    assert all(row[3] for row in rows[:-3])


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("boats", "boat"),
        ("beaches", "beach"),
        ("flies", "fly"),
        ("circled", "circle"),
        ("hopping", "hop"),
        ("bouncing", "bounce"),
    ],
)
def test_base_forms_hold_the_word_itself_and_its_stem(word, base):
    assert base_forms(word)[0] == word
    assert base in base_forms(word)


@pytest.mark.parametrize("word", ["red", "grass", "see", "is", "bed"])
def test_short_words_are_not_cut(word):
    assert base_forms(word) == (word,)


def test_somebody_who_sees_names_no_sea():
    assert "terrain" not in meanings("we see a red ball")
    assert meanings("we see a ball over the see")["terrain"] == "sea"
    assert "know" not in notes("I see a red ball")


@pytest.mark.parametrize(
    ("text", "note", "expected"),
    [
        ("a red blue ball", "one color: red (left out: blue)", {"color": "red"}),
        ("a ball and a boat", "one object: ball (left out: boat)", {"object": "ball"}),
        ("a red kite and a blue boat", "one object: kite (left out: boat)", {"object": "kite", "color": "red"}),
        ("a kite at dawn by night", "one time of day: at dawn (left out: night)", {"time of day": "dawn"}),
        ("a ball in the desert by the sea", "one place: the desert (left out: the sea)", {"terrain": "dunes"}),
        ("a boat over green hills", "boats on the sea (left out: green hills)", {"object": "boat", "terrain": "sea"}),
        ("a boat circling", "boats drifting, bobbing or resting (left out: circling)", {"object": "boat"}),
        ("a boat circling and bobbing", "(left out: circling)", {"motion": "bouncing"}),
        ("a white ball over blue hills", "the ground in its own colors (left out: blue)", {"color": "white"}),
        ("pan left. pan right", "one camera movement: the camera pans left", {"camera": "left"}),
        ("a salmon kite", "pink, the color nearest to salmon", {"color": "pink"}),
        ("a duck on the grass", "ducks on the sea (left out: grass)", {"object": "duck", "terrain": "sea"}),
        ("three balls", "one ball, not several", {"object": "ball"}),
        ("kites", "one kite, not several", {"object": "kite"}),
    ],
)
def test_one_note_says_what_is_used_of_a_prompt_that_contradicts_itself(text, note, expected):
    prompt = format_prompt(text, 2)
    assert [note in line for line in prompt.notes if line.startswith("pocket shows ")] == [True]
    assert expected.items() <= meanings(prompt.text).items()


def test_several_contradictions_are_one_note():
    lines = [line for line in format_prompt("two red blue balls and a boat", 2).notes if "pocket shows" in line]
    assert lines == ["pocket shows one object: balls (left out: boat); one color: red (left out: blue); "
                     "one ball, not several"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "color"),
    [("hills with a red ball", "red"), ("a ball, bright and red", "red"), ("over blue water a white boat", "white"),
     ("a boat with a purple sail", "purple"), ("blue mountains, a green kite", "green"), ("kite red hills", "red")],
)  # fmt: skip
def test_a_color_is_the_object_s_wherever_it_stands(text, color):
    assert meanings(text)["color"] == color


def test_who_sails_without_an_object_sails_in_a_boat():
    assert {meanings(format_prompt("sailing at dusk", seed).text)["object"] for seed in range(20)} == {"boat"}
    assert meanings(format_prompt("sailing over the dunes", 1).text)["object"] != "boat"


def test_left_and_still_are_the_camera_s_only_beside_it():
    assert "camera" not in meanings("a ball drifting left")
    assert "pocket ignores: left" in notes("a ball drifting left")
    read = meanings("a ball hanging still, the camera pans right")
    assert read == {"object": "ball", "motion": "hovering", "camera": "right"}


def test_unknown_words_are_named_once_with_the_nearest_known_one():
    assert f"pocket does not know: zebra, chasing; {HINT}" in notes("a red zebra chasing a zebra")
    assert f"pocket does not know: baot (did you mean boat?); {HINT}" in notes("a red baot")
    assert "baot (did you mean boat?), cat;" in notes("a baot, a cat and a kite")
    assert "did you mean" not in notes("a ball rising in the street")
    assert "not know" not in notes("please show me a video of a red ball in the sky")


@pytest.mark.parametrize("text", ["zebra", "a the of", "?!", "123", "红色的气球", "a zebra in the video"])
def test_a_prompt_without_a_word_that_means_something_is_refused(text):
    with pytest.raises(UsageError, match="pocket knows none of the words") as caught:
        format_prompt(text, 1)
    assert caught.value.hint == HINT


def test_a_refused_prompt_names_near_words_and_is_quoted_in_short():
    with pytest.raises(UsageError) as caught:
        format_prompt("a baot", 1)
    assert caught.value.hint == f"did you mean boat? {HINT}"
    with pytest.raises(UsageError) as caught:
        format_prompt("zebra " * 10_000, 1)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["red ball " * 9000, "camera left ball " * 6000, "red " * 20_000 + "ball", "kite " + "in the " * 9000, "kite"
     + " seeing" * 9000, "ball " + " ".join(f"word{n}" for n in range(9000)), "kite " + "x" * 100_000],
)  # fmt: skip
def test_a_long_prompt_is_read_quickly_and_noted_in_short_lines(text):
    begun = time.process_time()
    prompt = format_prompt(text, 1)
    assert time.process_time() - begun < 2
    assert len(prompt.text) < 150
    assert max(map(len, prompt.notes)) < 400
    assert any("reads 200 words" in line for line in prompt.notes) == (len(text.split()) > 200)


def test_words_of_the_continued_video_come_before_the_seed_s():
    source = "a white kite circling above golden dunes at dawn, panning left"
    assert format_prompt("a red kite", 5, source).text == source.replace("white", "red")
    assert "filled in from the video and the seed" in notes("a red kite", 5, source)
    assert format_prompt("at night", 5, source).text.endswith("at night, panning left")
    boat = meanings(format_prompt("a boat", 5, source).text)
    assert (boat["color"], boat["terrain"], boat["time of day"]) == ("white", "sea", "dawn")
    assert boat["motion"] in ON_WATER
    ashore = meanings(format_prompt("over hills", 5, "a red boat resting on calm water at noon").text)
    assert ashore["object"] != "boat"
    assert (ashore["color"], ashore["motion"]) == ("red", "hovering")


@pytest.mark.parametrize("text", [*SHORT, *PROMPTS, "a red blue boat over hills, camera left", "a baloon and a kite"])
def test_a_continuation_under_the_same_prompt_keeps_the_caption(text):
    full = format_prompt(text, 11).text
    assert format_prompt(text, 12, full).text == full


@pytest.mark.parametrize("source", ["", "zebra", "\x1b[2J", "camera " * 50_000, "a tram glides through a street"])
def test_a_caption_that_says_nothing_leaves_all_to_the_seed(source):
    assert meanings(format_prompt("a kite", 5, source).text)["object"] == "kite"
