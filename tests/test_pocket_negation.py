"""What a prompt for pocket rules out, colors of unknown things, and words that pocket does not read."""

from __future__ import annotations

import pytest

from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.prompt import format_prompt, suggestions


def notes(text: str) -> str:
    return "\n".join(format_prompt(text, 1).notes)


def meanings(text: str) -> dict[str, str]:
    return parse(text).meanings()


@pytest.mark.parametrize(
    ("text", "kind", "meaning", "typed"),
    [
        ("no balloon over the sea", "object", "balloon", "balloon"),
        ("a ball that isn't red", "color", "red", "red"),
        ("a kite, not circling", "motion", "circling", "circling"),
        ("a ball without a red boat", "object", "boat", "red, boat"),
        ("over hills, no kite or boat", "object", "kite", "kite, boat"),
        ("no ball", "object", "ball", "ball"),
    ],
)
def test_what_a_prompt_rules_out_is_never_shown(text: str, kind: str, meaning: str, typed: str) -> None:
    assert f"pocket leaves out what the prompt rules out: {typed}" in notes(text)
    assert "does not know: no" not in notes(text)
    for seed in range(20):
        assert parse(format_prompt(text, seed).text).meanings()[kind] != meaning


def test_a_synonym_that_is_ruled_out_leaves_what_is_named() -> None:
    assert parse(format_prompt("a boat at night, no moon", 1).text).meanings()["time of day"] == "night"
    still = format_prompt("the camera is not moving, a red ball", 1)
    assert parse(still.text).meanings()["camera"] == "still"
    assert "rules out" not in " ".join(still.notes)


@pytest.mark.parametrize(
    "text", ["a ball under white clouds", "white clouds over hills, a ball", "a ball with white stripes"]
)
def test_the_color_of_an_unknown_thing_is_not_the_object_s(text: str) -> None:
    assert "color" not in meanings(text)
    assert "no color but the ball's (left out: white)" in notes(text)


@pytest.mark.parametrize("text", ["a white fluffy ball", "a ball, white", "a ball that is white today", "a white sofa"])
def test_the_color_of_the_object_is_kept_next_to_unknown_words(text: str) -> None:
    assert meanings(text)["color"] == "white"


def test_symbols_and_other_languages_are_noted() -> None:
    assert "pocket reads only words; left out: \N{BALLOON}" in notes("a red ball \N{BALLOON}")
    assert "lists the English words it knows" in notes("ein roter ball")
    assert "brown, the color nearest to black" in notes("a black ball")


@pytest.mark.parametrize(("word", "close"), [("sofa", ""), ("kiet", "kite"), ("blal", "ball"), ("dwan", "dawn")])
def test_a_short_word_is_close_only_by_one_edit(word: str, close: str) -> None:
    assert suggestions([word]).get(word, "") == close
