"""`pavdm info` of an interrupted or unfinished video: its frames so far, and how many are missing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from bisect import bisect_left, bisect_right
from fractions import Fraction
from pathlib import Path

import pytest
from support.clips import grays
from support.command import pavdm

from pavdm_cli.commands.info import redo_command, stored_flags
from pavdm_cli.generation.metadata import FIELDS
from pavdm_cli.generation.timeline import parse_time
from pavdm_cli.video import VideoWriter
from pavdm_cli.video.paths import checkpoint_path

ASKED = {"prompt": "a red ball", "seed": 1, "model": "pocket", "frames": 24}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(count: int, suffix: str, **metadata: object) -> VideoWriter:
    """A video in the making, with some of its frames."""
    writer = VideoWriter(f"my v.{suffix}", 64, 48, 8, ASKED | metadata)
    writer.write(grays(count))
    writer.flush()
    return writer


def answer(name: str) -> dict[str, object]:
    """What --json prints of the generation parameters."""
    answer_fields = json.loads(pavdm("info", name, "--json").out)
    assert answer_fields.pop("file")["codec"]
    return answer_fields


def frames_row(name: str) -> str:
    code, out, err = pavdm("info", name)
    assert (code, err) == (0, "")
    return next(line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("frames"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif"])
def test_a_partial_file_states_its_frames_of_how_many_and_what_continues_it(suffix):
    written(9, suffix).close_partial()
    part = f"my v.partial.{suffix}"
    assert frames_row(part) == f"9 of 24, interrupted; `pavdm extend '{part}' --frames 15` continues it"
    assert pavdm("info", part).out.splitlines()[-1].startswith("pavdm generate 'a red ball' --frames 24 ")
    assert answer(part) == ASKED | {"frames_in_file": 9, "complete": False}
    Path(part).rename(f"renamed.{suffix}")
    assert frames_row(f"renamed.{suffix}").startswith("9 of 24, interrupted")


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_whole_video_is_no_part(suffix):
    written(24, suffix).finish()
    assert frames_row(f"my v.{suffix}") == "24"
    assert answer(f"my v.{suffix}") == ASKED | {"frames_in_file": 24, "complete": True}


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
@pytest.mark.parametrize("tick", [Fraction(1, 1000), Fraction(1, 90000)])
def test_printed_times_of_a_redo_name_its_frames(rate: Fraction, tick: Fraction) -> None:
    times = [round(number / rate / tick) * tick for number in range(121)]
    for first in range(0, 120, 7):
        record = {"source": "v.mp4", "first": first, "end": first + 1, "seed": 1, "prompt": "a red ball"}
        words = shlex.split(redo_command(record, ASKED, times))
        start, end = (Fraction(str(parse_time(words[words.index(flag) + 1]))) for flag in ("--from", "--to"))
        assert (bisect_right(times, start) - 1, bisect_left(times, end)) == (first, first + 1)
        assert end <= times[first + 1]


def test_the_commands_of_a_video_redone_thrice_follow_each_other() -> None:
    sources = ("v.mp4", "v.mp4", "my redo.mp4")
    redo = [{"source": source, "first": 0, "end": 24, "seed": 2, "prompt": "a red ball"} for source in sources]
    with VideoWriter("third.mp4", 64, 48, 8, metadata=ASKED | {"redo": redo}) as writer:
        for _ in range(24):
            writer.write(grays(1))
    words = [shlex.split(line) for line in pavdm("info", "third.mp4").out.splitlines()[-4:]]
    assert [command[command.index("-o") + 1 :] if "-o" in command else [] for command in words] == [
        ["v.mp4"],
        ["v.mp4", "--force"],
        ["my redo.mp4"],
        [],
    ]
    assert "--config THIS_FILE -o v.mp4`" in pavdm("info", "--config", "third.mp4").out


def test_an_extended_video_tells_its_own_frames_from_the_model_s() -> None:
    metadata = ASKED | {"source": "in.mov", "frames": 20, "copied": 4, "fps": 8}
    with VideoWriter("more.mp4", 64, 48, 30, metadata={"pavdm": "1"} | metadata) as writer:
        for _ in range(24):
            writer.write(grays(1))
    rows = dict(line.split(maxsplit=1) for line in pavdm("info", "more.mp4").out.splitlines() if " " in line)
    assert rows["fps"] == "8, of the model"
    assert rows["frames"] == "20 added, at 30 fps"


@pytest.mark.skipif(os.name != "posix", reason="a file that is being written is locked on POSIX alone")
def test_a_video_that_grows_is_not_said_to_be_cut_short():
    writer = written(20, "mkv")
    writer.encoder.close()
    assert frames_row("my v.partial.mkv") == "20 of 24, still being written"
    writer.close_partial()
    assert "interrupted" in frames_row("my v.partial.mkv")


@pytest.mark.parametrize(
    ("held", "expected"),
    [(17, "17 of 34, interrupted; `pavdm extend 'my v.partial.mp4' --frames 17` continues it"), (7, "starts over")],
)
def test_the_frames_of_the_video_that_is_continued_count_too(held, expected):
    written(held, "mp4", source="s.mp4", copied=10).close_partial()
    assert expected in frames_row("my v.partial.mp4")


def test_a_continuation_of_a_damaged_video_may_lack_a_frame_and_is_whole():
    written(30, "mp4", source="s.mp4", copied=10).finish()
    assert frames_row("my v.mp4") == "24 added, at 8 fps"


# Metadata that somebody else wrote


def info(**metadata: object) -> tuple[str, str]:
    """What is said on both streams of a video with some metadata."""
    written(9, "mp4", **metadata).close_partial()
    code, out, err = pavdm("info", "my v.partial.mp4")
    assert (code, "Traceback" in err) == (0, False)
    return out, err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", "many"),
        ("frames", None),
        ("frames", 10**30),
        ("compile", None),
        ("compile", "--output=/etc/passwd"),
        ("vae_tiling", "perhaps"),
        ("seed", -1),
        ("seed", True),
        ("size", "96x64 --force"),
        ("size", 96),
        ("crf", 1.5),
        ("copied", [1]),
        ("context", "no"),
        ("versions", {"python": {"a": 1}}),
        ("x" * 100, 12345),
        ("steps", {"a": [[1]]}),
        ("source", 7),
        ("later", [[1]]),
    ],
)
def test_a_field_of_a_wrong_type_or_range_is_left_out_and_named(name: str, value: object):
    out, err = info(**{name: value})
    assert err.startswith("note: damaged metadata is ignored: ")
    names = [line.split()[0] for line in out.splitlines() if line]
    assert (err.count("\n"), name in names) == (1, False)
    command = out.splitlines()[-1]
    assert command.startswith("pavdm generate 'a red ball'")
    assert str(value) not in command


@pytest.mark.parametrize("prompt", [None, 3, ["a"], "x" * 30_000])
def test_metadata_without_a_prompt_is_none(prompt: object):
    written(9, "mp4", prompt=prompt).close_partial()
    code, out, err = pavdm("info", "my v.partial.mp4")
    assert (code, err) == (0, "")
    assert "prompt" not in out
    assert "pavdm generate" not in out
    assert "video      h264, 64x48" in out


def test_a_size_without_a_rate_still_gives_a_command():
    assert info(size="96x64")[0].splitlines()[-1].endswith("--size 96x64")


def test_fields_of_other_versions_are_shown():
    out, err = info(later={"a": 1}, more=[1, 2], nothing=None)
    assert err == ""
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if "  " in line)
    assert (rows["later"], rows["more"], rows["nothing"]) == ("a 1", "[1, 2]", "None")


def test_of_many_damaged_fields_the_first_are_named():
    err = info(**{f"field{number}": [[1]] for number in range(500)})[1]
    assert (err.count("\n"), "and 495 more" in err) == (6, True)


HOSTILE = "x\x1b]0;t\x07\n\u202e;rm -rf ~;'$(id)"


def test_control_characters_are_escaped_and_the_command_is_safe_to_paste():
    out, _ = info(prompt=HOSTILE, model=HOSTILE, source=f"-{HOSTILE}.mp4", later=HOSTILE)
    assert all(line.isprintable() for line in out.splitlines())
    assert "x\\x1b]0;t\\x07\\n\\u202e;rm" in out
    printed = out.splitlines()[-1].removeprefix("pavdm")
    shell = ["bash", "-c", f"printf '%s\\0' {printed}"]
    words = subprocess.run(shell, capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert words[:3] == ["extend", "--prompt", HOSTILE]
    assert words[-2:] == ["--", f"-{HOSTILE}.mp4"]


def test_a_prompt_that_begins_with_a_dash_makes_a_command_that_works():
    printed = info(prompt="-a red ball", steps=6, seed=3)[0].splitlines()[-1]
    assert printed.endswith(" -- '-a red ball'")
    result = pavdm(*shlex.split(printed.replace("--frames 24", "--frames 2"))[1:])
    assert result.code == 0, result.err


def test_every_option_of_the_command_has_a_type():
    assert {*stored_flags()} <= {*FIELDS}


def test_the_name_of_an_interrupted_video_leads_to_its_partial_file() -> None:
    written(9, "mp4").close_partial()
    checkpoint_path(Path("my v.partial.mp4")).write_bytes(b"x")
    for name in ("my v.mp4", "my v.partial.mp4.state"):
        code, out, err = pavdm("info", name)
        assert (code, "is not complete: this is my v.partial.mp4" in err) == (0, True)
        assert "9 of 24, interrupted; `pavdm resume 'my v.partial.mp4'` continues it" in out
    assert answer("my v.mp4") == ASKED | {"frames_in_file": 9, "complete": False}
    assert "hint: it was interrupted: `pavdm resume 'my v.mp4'` completes it" in pavdm("extend", "my v.mp4").err
    Path("my v.partial.mp4").write_bytes(b"")
    code, _, err = pavdm("info", "my v.mp4")
    assert (code, "interrupted before its first frame\nhint: `pavdm resume 'my v.mp4'` continues it" in err) == (
        3,
        True,
    )
