"""Misspelled words of a prompt, and ambiguous words."""

from __future__ import annotations

import pytest
from test_pocket_prompt import notes

from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.prompt import format_prompt, suggestions


def test_a_misspelled_word_is_corrected_where_nothing_else_of_its_kind_is_named() -> None:
    text = "a red baloon over the hils"
    assert 'pocket reads "baloon" as "balloon"\npocket reads "hils" as "hills"' in notes(text)
    assert "balloon" in format_prompt(text, 0).text
    assert 'as "balloon"' not in notes("a kite and a baloon")
    assert "kite" in format_prompt("a kite and a baloon", 0).text


def test_a_named_object_sails_whatever_it_is() -> None:
    assert all("kite" in format_prompt("a kite sailing at dusk", seed).text for seed in range(8))
    assert all("boat" in format_prompt("sailing at dusk", seed).text for seed in range(8))


EVERYDAY = ["slow", "slowly", "motion", "fast", "cinematic", "light", "big", "wind", "mood", "castle"]
EVERYDAY += ["story", "planet", "horse", "stork", "bench", "crowd", "fire", "like", "showing"]


@pytest.mark.parametrize("word", EVERYDAY)
def test_an_everyday_word_is_no_slip(word: str) -> None:
    assert suggestions([word]) == {}
    assert "did you mean" not in notes(f"a red ball, {word}")


def test_a_suggested_word_means_something_by_itself() -> None:
    slips = "baot boaat kits hils mountians desrt moonlihgt snwo floatign balllon suset crimsn"
    found = suggestions(slips.split())
    assert {"baot", "hils", "mountians", "moonlihgt", "suset"} <= found.keys()
    assert all(parse(word).slots for word in found.values())


@pytest.mark.parametrize("text", ["a red kite over snowy hills", "a red kite in the snow", "a red kite while it snows"])
def test_a_known_word_gets_no_hint(text: str) -> None:
    assert "did you mean" not in notes(text)
    assert "ignores" not in notes(text)


def test_a_hint_may_be_a_kind_of_weather() -> None:
    assert suggestions(["rian", "snowfal"]) == {"rian": "rain", "snowfal": "snowfall"}


@pytest.mark.parametrize(
    "text",
    ["a red ball under a purple sky", "a red kite in the orange sky", "purple sky over the sea, a red ball",
     "the sky is purple and a ball is red", "a red ball at a golden sunset", "a red ball under a dark blue night sky",
     "a red ball under a purple cloudy sky", "an umbrella is red, under pink skies"],
)  # fmt: skip
def test_a_color_of_the_sky_is_called_that(text: str) -> None:
    assert "pocket shows the sky in the colors of its time of day (left out: " in notes(text)
    assert "ground" not in notes(text)
    assert format_prompt(text, 0).text.startswith("a red ")


NAMED_COLORS = {
    "a ball of red color": "a red ball",
    "a red-coloured ball over the sea": "a red ball",
    "a ball, color: green": "a green ball",
    "a ball in the colour blue": "a blue ball",
    "the color of the kite is yellow": "a yellow kite",
}


@pytest.mark.parametrize("text", NAMED_COLORS)
def test_the_word_color_may_be_said(text: str) -> None:
    formatted = format_prompt(text, 1)
    assert formatted.text.startswith(NAMED_COLORS[text])
    assert not [note for note in formatted.notes if "know" in note or "left out" in note]
