"""`pavdm info` of a video that was cut short, or is still being made: the frames it holds beside those asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from clips import greys
from command import pavdm

from pavdm_cli.video import VideoWriter

ASKED = {"prompt": "a red ball", "seed": 1, "model": "pocket", "frames": 24}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(count: int, suffix: str, **recipe: object) -> VideoWriter:
    """A video in the making, with some of its frames."""
    writer = VideoWriter(f"my v.{suffix}", 64, 48, 8, ASKED | recipe)
    writer.write(greys(count))
    writer.flush()
    return writer


def frames_row(name: str) -> str:
    code, out, err = pavdm("info", name)
    assert (code, err) == (0, "")
    return next(line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("frames"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif"])
def test_a_part_tells_the_frames_it_holds_of_those_asked_for_and_what_goes_on(suffix):
    written(9, suffix).keep_partial()
    part = f"my v.partial.{suffix}"
    assert frames_row(part) == f"9 of 24, cut short; `pavdm extend '{part}' --frames 15` goes on"
    assert pavdm("info", part).out.splitlines()[-1].startswith("pavdm generate 'a red ball' --frames 24 ")
    assert json.loads(pavdm("info", part, "--json").out) == ASKED | {"held": 9, "whole": False}
    Path(part).rename(f"renamed.{suffix}")
    assert frames_row(f"renamed.{suffix}").startswith("9 of 24, cut short")


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_whole_video_is_no_part(suffix):
    written(24, suffix).finish()
    assert frames_row(f"my v.{suffix}") == "24"
    assert json.loads(pavdm("info", f"my v.{suffix}", "--json").out) == ASKED | {"held": 24, "whole": True}


@pytest.mark.skipif(os.name != "posix", reason="a file that is being written is locked on POSIX alone")
def test_a_video_that_grows_is_not_said_to_be_cut_short():
    writer = written(20, "mkv")
    writer.encoder.close()
    assert frames_row("my v.partial.mkv") == "20 of 24, still being made"
    writer.keep_partial()
    assert "cut short" in frames_row("my v.partial.mkv")


@pytest.mark.parametrize(
    ("held", "says"),
    [(17, "17 of 34, cut short; `pavdm extend 'my v.partial.mp4' --frames 17` goes on"), (7, "begins again")],
)
def test_the_frames_of_the_video_that_is_continued_count_too(held, says):
    written(held, "mp4", source="s.mp4", copied=10).keep_partial()
    assert says in frames_row("my v.partial.mp4")


def test_a_continuation_of_a_damaged_video_may_lack_a_frame_and_is_whole():
    written(30, "mp4", source="s.mp4", copied=10).finish()
    assert frames_row("my v.mp4") == "24"


@pytest.mark.parametrize("frames", ["many", None])
def test_what_is_no_number_of_frames_is_shown_as_it_is(frames):
    written(9, "mp4", frames=frames).keep_partial()
    assert frames_row("my v.partial.mp4") == str(frames)
