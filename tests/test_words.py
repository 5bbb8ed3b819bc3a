"""The words the embedded model knows, and the captions it is trained on."""

from __future__ import annotations

import hashlib
import random
import re

import pytest
import torch

from pavdm_cli.models.pocket.text_encoder import batch_ids
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.parse import known_phrases
from pavdm_cli.pocket_world.vocabulary import (
    AFLOAT,
    GLUE,
    PAD,
    PHRASES,
    VOCABULARY,
    split,
    tokens,
)
from pavdm_cli.pocket_world.world import sample_scene

ALL_PHRASES = [phrase for table in PHRASES.values() for group in table.values() for phrase in group if phrase]
CAPTIONS = [caption(sample_scene(seed), random.Random(seed)) for seed in range(4000)]


def test_every_wording_is_in_the_vocabulary_whole():
    for phrase in [*ALL_PHRASES, *GLUE, "hot air balloon", "paper kite", "sailing boat", "in the moonlight"]:
        assert len(tokens(phrase)) == len(phrase.split())


def test_numbers_and_words_are_one_to_one_and_leave_zero_to_padding():
    assert sorted(VOCABULARY.values()) == list(range(1, len(VOCABULARY) + 1))
    assert list(VOCABULARY) == sorted(VOCABULARY)
    assert PAD not in VOCABULARY.values()


def test_the_vocabulary_is_the_one_the_shipped_weights_were_trained_with():
    """Another word, or another order, and every word means something else to them: train again, then change this."""
    assert hashlib.sha256(" ".join(VOCABULARY).encode()).hexdigest()[:16] == "3189860cec93ae67"


def test_a_prompt_becomes_the_numbers_of_its_words_in_order():
    prompt = "A RED balloon, over (green) hills!"
    assert tokens(prompt) == [VOCABULARY[word] for word in ("a", "red", "balloon", "over", "green", "hills")]
    assert tokens("balloon a") == tokens("a balloon")[::-1]


def test_prompts_are_padded_to_the_longest():
    ids = batch_ids(["a ball", "a red ball at night", ""])
    assert ids.shape == (3, 5)
    assert (ids != PAD).sum(1).tolist() == [2, 5, 0]
    assert batch_ids([""]).tolist() == [[PAD]]
    assert batch_ids(["a ball"]).dtype == torch.int64


def test_captions_are_whole_sentences_of_known_words_that_fit():
    for text in CAPTIONS:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", text), text
        assert len(tokens(text)) == len(split(text)) == len(text.split())
        assert re.match(r"(.*, )?(a [^aeiou]|an [aeiou])", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_a_caption_says_what_the_scene_holds_in_a_wording_of_it():
    for seed, text in enumerate(CAPTIONS[:800]):
        scene = sample_scene(seed)
        for table, meaning in (
            ("terrain", scene.terrain),
            ("time of day", scene.time),
            ("object", scene.object),
            ("color", scene.color),
            ("weather", scene.weather),
        ):
            assert any(phrase in text for phrase in PHRASES[table][meaning]), (table, text)
        assert ("pan" in text or "moves" in text) == (scene.camera != "still")
        assert scene.camera == "still" or scene.camera in text.split()


def test_captions_name_the_weather_unless_it_is_clear_and_no_sun_shines_on_rain():
    for seed, text in enumerate(CAPTIONS):
        weather = sample_scene(seed).weather
        said = [name for name, group in PHRASES["weather"].items() for phrase in filter(None, group) if phrase in text]
        assert said == ([] if weather == "clear" else [weather]), text
        assert weather == "clear" or "sunny" not in text


def test_no_wording_stands_for_two_meanings():
    for table in PHRASES.values():
        phrases = [phrase for group in table.values() for phrase in set(group)]
        assert len(phrases) == len(set(phrases))


def test_every_wording_appears_and_motions_go_unsaid_now_and_then():
    said = " | ".join(CAPTIONS)
    assert [phrase for phrase in ALL_PHRASES if phrase not in said] == []
    motions = [phrase for group in PHRASES["motion"].values() for phrase in group]
    silent = sum(not any(motion in text for motion in motions) for text in CAPTIONS)
    assert silent / len(CAPTIONS) == pytest.approx(0.08, abs=0.02)


def test_captions_vary_and_depend_on_their_draw_alone():
    scene = sample_scene(5)
    assert len({caption(scene, random.Random(seed)) for seed in range(200)}) > 100
    assert caption(scene, random.Random(1)) == caption(scene, random.Random(1))


def test_what_floats_is_on_the_water_and_what_flies_over_the_land():
    for seed, text in enumerate(CAPTIONS[:800]):
        place = re.search(r"(on|over|above) (" + "|".join(PHRASES["terrain"][sample_scene(seed).terrain]) + ")", text)
        assert place, text
        assert (place[1] == "on") == (sample_scene(seed).object in AFLOAT), text


def test_every_wording_of_a_caption_is_in_the_vocabulary():
    assert {word for _, _, wording in known_phrases().values() for word in split(wording)} <= VOCABULARY.keys()
