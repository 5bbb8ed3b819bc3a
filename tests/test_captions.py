"""Prompts as Open-Sora reads them, against recorded pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pavdm_cli.models.captions import clean, with_scores

RECORDED = json.loads((Path(__file__).parent / "golden" / "text.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("pair", RECORDED["text_preprocessing"], ids=lambda pair: pair["input"][:20])
def test_a_prompt_is_cleaned_as_recorded(pair):
    assert clean(pair["input"]) == pair["clean"]


@pytest.mark.parametrize("case", RECORDED["append_score"], ids=lambda case: case["out"])
def test_scores_are_added_as_recorded(case):
    assert with_scores(case["prompt"], case["aes"], case["flow"], case["camera_motion"] or "") == case["out"]


@pytest.mark.parametrize(
    "prompt",
    [
        "a 1990s street in new york, 1080p, at 5pm",
        "three friends walk along the sea; it rains.",
        "a train passes at 1:23, doors close",
        "an old man's well-worn coat",
        "camera motion: pan left. a crowd of 1,000 people",
    ],
)
def test_plain_words_are_left_as_they_are(prompt):
    assert clean(prompt) == prompt


def test_what_the_first_round_uncovers_goes_in_the_second():
    assert clean("hello %2540bob") == "hello"


@pytest.mark.parametrize("prompt", ["", "   ", "#", "猫", "http://x.com", "-", "' \" '", "%00%ff", "\x00", "<" * 2000])
def test_whatever_is_typed_is_cleaned_without_a_mistake(prompt):
    assert clean(clean(prompt)) == clean(prompt)
