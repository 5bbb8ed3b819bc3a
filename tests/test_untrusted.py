"""Untrusted files and JSON: what is rejected at once, and the messages about it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pavdm_cli.runtime.untrusted import (
    FLAG,
    MAX_BYTES,
    MAX_DEPTH,
    InvalidError,
    integer,
    list_of,
    mapping_of,
    mismatches,
    number,
    one_of,
    optional,
    parse_json,
    read_file,
    read_json,
    string,
    summarize,
)


def nested(depth: int) -> str:
    return '{"a":[' * (depth // 2) + "1" + "]}" * (depth // 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        (nested(100_000), "nested too deeply"),
        (nested(MAX_DEPTH + 2), "nested too deeply"),
        ("NaN", "NaN"),
        ("[1, -Infinity]", "-Infinity"),
        ("1e999", "out of range"),
        ("9" * 5000, "out of range"),
        ("-" + "9" * 60, "out of range"),
        ('"\\ud800"', "not Unicode"),
        ('{"\\udc00x": 1}', "not Unicode"),
        ('[{"a": "\\udfff"}]', "not Unicode"),
        ('{"seed": 1, "seed": 2}', "same name twice"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1] [2]", "not JSON"),
        ('"' + "x" * MAX_BYTES + '"', "more than"),
    ],
)
def test_invalid_json_is_rejected_with_the_reason(text, message):
    with pytest.raises(InvalidError, match=message) as excinfo:
        parse_json(text)
    assert "\n" not in str(excinfo.value)


def test_json_within_the_bounds_is_read_as_it_is():
    assert parse_json(nested(MAX_DEPTH)) is not None
    assert parse_json('[1, -2.5, 1e30, true, null, "\\ud83d\\ude00", {}]') == [1, -2.5, 1e30, True, None, "😀", {}]
    assert parse_json('"\\udcff.mp4"') == os.fsdecode(b"\xff.mp4")  # a file name that is no text


@pytest.mark.skipif(os.name != "posix", reason="pipes, devices and sockets have no names elsewhere")
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(tmp_path)
        listening.bind("socket")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "/dev/zero", "/dev/null", ".", "socket", "loop", "missing", "/proc/self/mem"):
        with pytest.raises((InvalidError, OSError)):
            read_file(name, 10)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("\ufeff[1]", encoding="utf-8")
    assert read_json(path) == [1]
    with pytest.raises(InvalidError, match="more than 3 bytes"):
        read_file(path, 3)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidError, match="UTF-8"):
        read_json(path)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (integer(1, 3), (1, 3), (0, 4, True, 1.0, "1", None, 10**30)),
        (number(0, 1), (0, 1, 0.5), (True, -0.1, float("nan"), float("inf"), 10**30, "0")),
        (string(3), ("", "abc"), ("abcd", 1, None)),
        (one_of("a", 1), ("a", 1), (True, 1.0, "b", [])),
        (FLAG, (True, False), (0, 1, None)),
        (list_of(integer(0, 9), 3, 3), ([1, 2, 3],), ([1, 2], [1, 2, "3"], (1, 2, 3), None)),
        (mapping_of(string(2), 1), ({}, {"a": "b"}), ({"a": 1}, {"a": "b", "c": "d"}, [])),
        (optional(FLAG), (None, True), (0,)),
    ],
)
def test_a_kind_of_value_is_told_from_others(kind, good, bad):
    assert all(kind.fits(value) for value in good)
    assert not any(kind.fits(value) for value in bad)


def test_what_is_wrong_with_values_is_said_by_name():
    kinds = {"steps": integer(1, 100), "fps": integer(1, 60)}
    assert mismatches({"steps": 12, "other": []}, kinds, required=("steps",)) == []
    assert mismatches({"steps": "many"}, kinds, required=("steps", "fps")) == [
        "fps is missing",
        "steps is 'many', not an integer from 1 to 100",
    ]


def test_a_value_is_shown_short_and_in_ascii():
    assert summarize("\x1b[31m\u202e") == "'\\x1b[31m\\u202e'"
    assert len(summarize("x" * 10**7)) < 50
    assert summarize([[]] * 9) == "a list of 9"
