"""Prompts that change during a video: parsing, errors, and storage."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import pavdm
from support.options import parsed

import pavdm_cli
from pavdm_cli.commands.batch_jobs import read_jobs
from pavdm_cli.commands.common import join_at_pairs
from pavdm_cli.commands.info import command
from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.generation.timeline import PromptChange, format_seconds, parse_time, parse_timeline, read_timeline

BALL, NIGHT = "a red ball over the sea by day", "a red ball over the sea at night"
TIMES = {
    "20": 20,
    "20s": 20,
    "0.5s": 0.5,
    "20.25": 20.25,
    "1:20": 80,
    "1:02:03.5": 3723.5,
    "2m": 120,
    "1.5m": 90,
    "1m30s": 90,
    "1h": 3600,
    "1h0.5s": 3600.5,
    7: 7,
    7.5: 7.5,
    "90s": 90,
}


@pytest.mark.parametrize("text", TIMES)
def test_times_are_seconds_or_minutes(text: str | float) -> None:
    assert parse_time(text) == TIMES[text]


@pytest.mark.parametrize(
    "text", ["", "s", "-3", "1:60", "1:60:00", "m", "1m2m", "30s1m", "1m30", "1e3", "nan", "inf", "1:", "٣", True, None]
)
def test_an_invalid_time_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="is not a valid time"):
        parse_time(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "h"])
def test_a_time_that_no_float_can_hold_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="longer than any video"):
        parse_time(text)


@given(st.floats(0.001, 10**7))
def test_a_time_that_is_printed_is_the_same_time(seconds: float) -> None:
    rounded = round(seconds, 6)
    assert parse_time(format_seconds(rounded)) == rounded


CHANGES = (PromptChange(20, "a boat: at night"), PromptChange(80, "a kite"))
WRITTEN = {
    "lines": "# two prompts\n\n20s: a boat: at night\n 1:20 :  a kite \n",
    "object": '{"20s": "a boat: at night", "1:20": "a kite"}',
    "list": '[{"at": 20, "prompt": "a boat: at night"}, {"prompt": "a kite", "at": "80s"}]',
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_timeline_file_has_lines_or_json(form: str, tmp_path: Path) -> None:
    file = tmp_path / "timeline"
    file.write_text(WRITTEN[form], encoding="utf-8-sig")
    assert read_timeline(file) == CHANGES
    assert parse_timeline(timeline=file) == parse_timeline(timeline=str(file)) == CHANGES


FORMS = (
    ["20s: a boat: at night", "1:20: a kite"],
    [("20", "a boat: at night"), [80.0, "a kite"]],
    {20: "a boat: at night", "1:20": "a kite"},
)


@pytest.mark.parametrize("at", FORMS)
def test_python_takes_pairs_texts_or_a_mapping(at: object) -> None:
    assert parse_timeline(at) == CHANGES


DAMAGED = {
    "20s a boat": "line 1 needs a time and a prompt",
    "1:20 a boat": "line 1 needs a time and a prompt",
    "20s: a boat\n99:99: a kite": "line 2: '99:99' is not a valid time",
    "": "it is empty",
    "[20]": "each entry",
    '{"20s": 3}': "entry 1 needs",
    '{"20s": "a", "20s": "b"}': "same name twice",
    "{": "not JSON",
    "\xff": "UTF-8",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_timeline_file_is_named_with_the_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "timeline"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=DAMAGED[text]) as error:
        read_timeline(file)
    assert str(file) in error.value.message


@pytest.mark.parametrize("place", [".", "missing"])
def test_an_unreadable_timeline_file_is_rejected(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the timeline"):
        read_timeline(tmp_path / place)


def test_a_time_and_a_prompt_become_one_word() -> None:
    words = shlex.split("generate x --at 8s 'a b' --at '1:20: c' -o v.mp4 --at 9s -q -- --at 1 y")
    joined = shlex.split("generate x '--at=8s: a b' --at '1:20: c' -o v.mp4 --at 9s -q -- --at 1 y")
    assert join_at_pairs(words) == joined
    assert join_at_pairs(["--at", "8s"]) == ["--at", "8s"]


REFUSED = {
    ("--at", "9s", BALL, "--at", "4s", NIGHT): "must ascend: got 9s, then 4s",
    ("--at", "4s", BALL, "--at", "4", NIGHT): "must ascend",
    ("--at", "0s", NIGHT): "starts at 0s",
    ("--at", "10s", NIGHT): "beyond the end of the video, 10s",
    ("--at", "4s", ""): "needs a time and a prompt",
    ("--at", "4s"): "needs a time and a prompt",
    ("--at", "4x", NIGHT): "needs a time and a prompt, got '4x: a red ball",
    ("--at", "4s", "a cat"): "the prompt at 4s: pocket knows none of the words",
    ("--blend", "2"): "--blend needs more than one prompt",
    ("--at", "4s", NIGHT, "--blend", "-1"): "--blend must be 0 to",
    ("--at", "4s", NIGHT, "--at", "5s", BALL, "--blend", "2"): "longer than the time between two prompts",
    ("--at", "4.1s", NIGHT, "--at", "4.2s", BALL): "no chunk starts between it and the next prompt",
    ("--at", "9.9s", NIGHT): "no chunk starts between it and the end of the video",
    ("--at", "4s", NIGHT, "--timeline", "t.txt"): "cannot be combined",
    ("--at", "4s", NIGHT, "--at", "6s", "\udcff a ball"): "the prompt at 6s",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_timeline_that_makes_no_sense_is_rejected_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    result = pavdm("generate", BALL, "--seed", 1, *words, "-o", tmp_path / "v.mp4")
    assert (result.code, result.out) == (2, ""), result.err
    assert REFUSED[words] in result.err
    assert [line.split(":")[0] for line in result.err.splitlines() if not line.startswith("seed")] == ["error", "hint"]


def test_a_hint_names_the_chunk_that_a_late_prompt_can_begin_with(tmp_path: Path) -> None:
    result = pavdm("generate", BALL, "--seed", 1, "--at", "9.9s", NIGHT, "-o", tmp_path / "v.mp4")
    assert "hint: a chunk starts at 9.5s" in result.err


def test_python_rejects_what_the_command_line_does() -> None:
    with pytest.raises(UsageError, match="beyond the end"):
        pavdm_cli.generate(BALL, seconds=2, at=[("3s", NIGHT)])
    with pytest.raises(UsageError, match="needs a time and a prompt"):
        pavdm_cli.generate(BALL, at=[3])


def test_the_command_of_info_has_captions_and_times() -> None:
    changes = [{"at": 8.5, "prompt": "at night", "caption": NIGHT}, {"at": 3600.25, "prompt": "a kite: red"}]
    words = shlex.split(command({"prompt": BALL, "timeline": changes, "blend": 1.5}))
    assert words[:3] == ["pavdm", "generate", BALL]
    assert words[words.index("--at") :] == ["--at", "8.5s", NIGHT, "--at", "3600.25s", "a kite: red"]
    assert words[words.index("--blend") + 1] == "1.5"


@pytest.mark.parametrize("change", [{"at": "8"}, {"at": 1, "prompt": 3}, {"at": 1, "prompt": "a", "x": 1}, 7])
def test_a_damaged_timeline_in_a_file_is_not_used(change: object) -> None:
    from pavdm_cli.generation.metadata import valid_fields

    fields, wrong = valid_fields(json.loads(json.dumps({"prompt": BALL, "timeline": [change]})))
    assert "timeline" not in fields
    assert wrong


def test_later_prompts_are_written_in_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "3s: a red ball; 2 kites at night; 5s: a blue kite by day"
    entries = ["3s: a red ball; 2 kites at night", "5s: a blue kite by day"]
    by_time = dict(entry.split(": ") for entry in entries)
    files = {
        "list.toml": f"at = {json.dumps(entries)}",
        "table.toml": "at = {" + ", ".join(f'"{time}" = "{prompt}"' for time, prompt in by_time.items()) + "}",
        "map.yaml": "at:\n" + "".join(f"  {time}: {prompt}\n" for time, prompt in by_time.items()),
    }
    jobs = {
        "a.csv": f'prompt,at\n{BALL},"{text}"\n',
        "b.jsonl": json.dumps({"prompt": BALL, "at": entries}),
        "c.jsonl": json.dumps({"prompt": BALL, "at": by_time}),
    }
    expected = "['3s: a red ball; 2 kites at night', '5s: a blue kite by day']"
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        plan = json.loads(pavdm("generate", BALL, "--config", name, "--plan", "--json", folder=tmp_path).out)
        assert plan["settings"]["at"]["value"] == expected, name
    for name, content in jobs.items():
        (tmp_path / name).write_text(content)
        (job,) = read_jobs(parsed("batch", str(tmp_path / name), "-d", "v"), tmp_path / name)
        assert [str(change) for change in job.request.timeline] == entries, name
    monkeypatch.setenv("PAVDM_AT", text)
    plan = json.loads(pavdm("generate", BALL, "--plan", "--json", folder=tmp_path).out)
    assert plan["settings"]["at"]["value"] == expected
