"""Properties of parsers and printers of untrusted text, on values that Hypothesis generates."""

from __future__ import annotations

import json
import shlex
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.models import MODELS, find
from support.requests import make_request

from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.metadata import FIELDS, valid_fields
from pavdm_cli.generation.request import parse_size
from pavdm_cli.pocket_world.prompt import format_prompt
from pavdm_cli.pocket_world.vocabulary import VOCABULARY, split
from pavdm_cli.runtime.printable import HIDDEN, command_line, printable
from pavdm_cli.runtime.untrusted import InvalidError, parse_json

SEARCH = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,  # the same examples in every run
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
ANY = st.text(st.characters())  # surrogates included
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | ANY
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=20)
NUMBERS = st.integers(-(10**38), 10**38) | st.floats(allow_nan=False, allow_infinity=False)
SOUND = st.recursive(
    st.none() | st.booleans() | NUMBERS | UNICODE,
    lambda inner: st.lists(inner) | st.dictionaries(UNICODE, inner),
    max_leaves=20,
)
PROMPTS = UNICODE | st.lists(st.sampled_from([*VOCABULARY, "boats", "ships", "not", ",", "."])).map(" ".join)


@SEARCH
@given(SOUND)
def test_sound_json_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value)) == value


@SEARCH
@given(VALUES)
def test_any_json_is_read_or_rejected(value):
    with suppress(InvalidError):
        parse_json(json.dumps(value, ensure_ascii=False))


@SEARCH
@given(ANY)
def test_any_text_is_read_as_json_or_rejected(text):
    try:
        value = parse_json(text)
    except InvalidError:
        return
    assert value == json.loads(text)


@SEARCH
@given(ANY)
def test_printed_text_is_one_line_without_hidden_characters(text):
    line = printable(text)
    assert not [letter for letter in line if unicodedata.category(letter) in HIDDEN]
    assert printable(line) == line
    line.encode()


@SEARCH
@given(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" -'\"\\$`!")), st.booleans())
def test_a_printed_command_is_read_back_by_a_shell(argument, dashed):
    argument = f"-{argument}" if dashed else argument
    options = ["--seed", "1", "--camera-motion", argument]
    words = shlex.split(command_line(["pavdm", "generate"], argument, options))
    plain = [*options, "--", argument] if argument.startswith("-") else [argument, *options]
    assert words == ["pavdm", "generate", *plain]


@SEARCH
@given(st.dictionaries(st.sampled_from([*FIELDS, "other", "x" * 80]), VALUES))
def test_stored_fields_are_kept_or_named(metadata):
    fields, wrong = valid_fields(metadata)
    assert len(fields) + len(wrong) == len(metadata)
    assert fields.items() <= metadata.items()


@SEARCH
@given(PROMPTS, st.integers(0, 2**63 - 1))
def test_a_prompt_becomes_a_caption_in_the_vocabulary_or_is_rejected(text, seed):
    try:
        prompt = format_prompt(text, seed)
    except UsageError:
        return
    assert set(split(prompt.text)) <= VOCABULARY.keys()
    assert format_prompt(text, seed) == prompt
    assert format_prompt(prompt.text, seed + 1).text == prompt.text


@SEARCH
@given(ANY | st.tuples(st.integers(-2, 10**6), st.integers(-2, 10**6)).map(lambda pair: f"{pair[0]}x{pair[1]}"))
def test_a_size_is_two_positive_numbers_or_rejected(text):
    try:
        size = parse_size(text)
    except UsageError:
        return
    assert min(size) >= 1


@SEARCH
@given(
    st.none() | st.floats() | st.integers(),
    st.none() | st.integers(),
    st.none() | st.floats(),
    st.none() | st.tuples(st.integers(-1, 10**9), st.integers(-1, 10**9)),
)
def test_a_request_is_valid_or_rejected(seconds, frames, fps, size):
    try:
        request = make_request(
            "a ball",
            seconds=seconds,
            frames=frames,
            fps=fps,
            size=size,
        )
    except UsageError:
        return
    assert 1 <= request.frame_count <= 24 * 3600 * request.spec.fps


@SEARCH
@given(st.text("ab/.:\\-_é \x00\n", max_size=30))
def test_a_model_is_recognized_or_rejected_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert name not in MODELS
    with pytest.raises(PavdmError) as refusal:
        find(name)
    assert refusal.value.exit_code == 5
