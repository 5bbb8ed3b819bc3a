"""Prompts whose time of day changes while the video runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.implied_changes import explicit_changes
from pavdm_cli.generation.provenance import _change
from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.pocket_world.changing_day import split_day
from pavdm_cli.pocket_world.example_prompts import example_prompts
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.prompt import format_prompt
from pavdm_cli.pocket_world.vocabulary import OBJECTS

SETS = "a red kite drifting over green hills as the sun sets, the camera pans left"
ENDING = ("as the sun sets", "while the sun goes down", "as night falls", "while it is getting dark",
          "when darkness comes", "As the sun slowly sinks", "from day to night", "as day turns into night",
          "and then the sun sets")  # fmt: skip
BEGINNING = ("as the sun rises", "while the sun comes up", "as day breaks", "as morning comes", "while it gets light",
             "from night to day", "night fades into day")  # fmt: skip


def times(text: str, seed: int = 3) -> list[str]:
    prompt = format_prompt(text, seed)
    return [parse(caption).meanings()["time of day"] for caption in (prompt.text, *(text for _, text in prompt.later))]


def config(prompt: str, **options: object) -> GenerationConfig:
    return resolve(build_request({"prompt": prompt, "seconds": 60, "device": "cpu", "seed": 3} | options))


@pytest.mark.parametrize("words", ENDING)
def test_a_day_ends_in_many_wordings(words: str) -> None:
    assert times(f"a boat {words}") == times(f"{words}, a boat") == ["day", "sunset", "night"]


@pytest.mark.parametrize("words", BEGINNING)
def test_a_day_begins_in_many_wordings(words: str) -> None:
    assert times(f"a boat {words}") == times(f"{words}, a boat") == ["night", "dawn", "day"]


@pytest.mark.parametrize(
    "text",
    [
        "a boat at sunset",
        "a boat, the sun sets",
        "a boat at nightfall",
        "the setting sun",
        "a kite at night as the sun sets",
    ],
)
def test_a_time_of_day_alone_does_not_change(text: str) -> None:
    assert split_day(text).later == format_prompt(text, 1).later == ()


def test_a_prompt_that_names_its_beginning_begins_there() -> None:
    assert times("a kite at sunset, as night falls") == ["sunset", "night"]
    assert times("a kite at dawn, as the day breaks") == ["dawn", "day"]


@pytest.mark.parametrize(
    "text", [SETS, "as night falls", "a duck as day breaks in the rain", "while it snows, a bird as the sun sets"]
)
def test_nothing_but_the_time_of_day_changes(text: str) -> None:
    for seed in range(6):
        prompt = format_prompt(text, seed)
        scenes = [
            parse(caption).meanings() | {"time of day": ""} for caption in (prompt.text, *dict(prompt.later).values())
        ]
        assert scenes[0] == scenes[1] == scenes[2]
        assert [start for start, _ in prompt.later] == [12, 30]
        for _, caption in prompt.later:
            assert format_prompt(caption, seed + 1).text == caption  # a full caption


def test_the_changes_are_those_of_a_timeline_and_a_note_lists_them() -> None:
    implied = config(SETS)
    by_hand = config(
        SETS.replace("as the sun sets", "by day"),
        at=[(12, SETS.replace("as the sun sets", "at sunset")), (30, SETS.replace("as the sun sets", "at night"))],
    )
    assert implied.timeline == by_hand.timeline
    assert [prompt.text for prompt in implied.prompts] == [prompt.text for prompt in by_hand.prompts]
    assert [
        note for note in implied.notes if note.startswith("the prompt changes at 12s to ") and ", at 30s to " in note
    ]
    stored = [_change(*pair) for pair in zip(implied.timeline, implied.formatted_timeline, strict=True)]
    assert [change["at"] for change in stored] == [12, 30]


def test_short_videos_change_earlier_and_very_short_ones_not_at_all() -> None:
    assert [change.at for change in config(SETS, seconds=15).timeline] == [4, 10]
    assert [change.at for change in config(SETS, seconds=600).timeline] == [12, 30]
    assert config(SETS, seconds=2).timeline == ()


def test_another_prompt_ends_the_changes_and_may_have_its_own() -> None:
    several = config(SETS, at=[("20s", "a blue kite"), ("35s", "as the sun rises")])
    assert [change.at for change in several.timeline] == [12, 20, 35, 47]
    assert [parse(prompt.text).meanings()["time of day"] for prompt in several.prompts] == [
        "day",
        "sunset",
        "sunset",
        "night",
        "dawn",
    ]
    assert [
        change.at for change in explicit_changes(replace(build_request({"prompt": SETS}), timeline=several.timeline))
    ] == [20, 35]


def test_a_loop_returns_to_the_first_time_of_day() -> None:
    with pytest.raises(UsageError, match="--loop needs the first prompt again at the end"):
        config(SETS, loop=True)
    assert [change.at for change in config(SETS, loop=True, at=[("50s", "by day")]).timeline] == [12, 30, 50]


@pytest.mark.parametrize("seconds", [4, 10, 45, 60])
def test_a_resumed_video_has_the_same_changes(seconds: float) -> None:
    request = build_request(
        {"prompt": SETS, "seconds": seconds, "device": "cpu", "at": [(seconds * 0.7, "a red kite")]}
    )
    first = resolve(request)
    again = resolve(replace(request, timeline=first.timeline))
    assert again.timeline == first.timeline
    assert [prompt.text for prompt in again.prompts] == [prompt.text for prompt in first.prompts]


def test_changes_too_close_together_for_the_blend_are_refused() -> None:
    assert config(SETS, blend=5).blend == 5
    with pytest.raises(UsageError, match="longer than the time between"):
        config(SETS, seconds=10, blend=9)


def test_every_kind_has_three_different_examples_that_pocket_understands() -> None:
    prompts = example_prompts()
    assert tuple(prompts) == OBJECTS
    for kind, group in prompts.items():
        assert len(set(group)) == 3
        for text in group:
            prompt = format_prompt(text, 1)
            assert parse(prompt.text).meanings()["object"] == kind
            assert not [note for note in prompt.notes if "leaves out" in note or "know" in note or "shows" in note], (
                text
            )
    everything = [text for group in prompts.values() for text in group]
    assert len({parse(text).meanings().get("color") for text in everything}) == 10
    assert all(before != after for before, after in pairwise(everything))
