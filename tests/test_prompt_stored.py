"""The prompt as typed and the caption made of it are both stored, and used by later commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clips import grays
from support.command import CommandResult, pavdm

from pavdm_cli.pocket_world.prompt import format_prompt
from pavdm_cli.video import FrameReader, VideoWriter, open_video

TYPED = "a sailboat, huge"
QUICK = ("--frames", "4", "--device", "cpu", "--threads", "1", "--steps", "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def short(folder: Path) -> CommandResult:
    """A video of a short prompt."""
    return pavdm("generate", TYPED, "--seed", "9", "-o", folder / "short.mp4", *QUICK, "--warmup", "0", "--scale", "1")


def stored(path: Path) -> dict[str, Any]:
    metadata = json.loads(pavdm("info", path, "--json").out)
    return {name: metadata.get(name) for name in ("prompt", "caption")}


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame for frame, _ in FrameReader(open_video(path))])


def test_one_note_names_the_caption_that_fills_a_short_prompt(short: CommandResult) -> None:
    assert short.code == 0, short.err
    said = " ".join(short.err.split())
    assert said.count("the prompt leaves out color, motion, place and time of day; filled in from the seed:") == 1
    assert format_prompt(TYPED, 9).text in said
    assert "does not know: huge" in said


def test_prompt_and_caption_are_in_the_file_and_in_json(short: CommandResult, folder: Path) -> None:
    assert stored(folder / "short.mp4") == {"prompt": TYPED, "caption": format_prompt(TYPED, 9).text}


def test_the_command_of_info_makes_the_same_frames_with_any_filling_in(short: CommandResult, folder: Path) -> None:
    line = pavdm("info", folder / "short.mp4").out.splitlines()[-1]
    words = shlex.split(line)
    assert words[:3] == ["pavdm", "generate", format_prompt(TYPED, 9).text]
    assert pavdm(*words[1:], "-o", folder / "again.mp4").code == 0
    assert np.array_equal(pictures(folder / "again.mp4"), pictures(folder / "short.mp4"))


def test_extend_keeps_the_caption_whatever_its_seed(short: CommandResult, folder: Path) -> None:
    done = pavdm("extend", folder / "short.mp4", "--seed", "77", "-o", folder / "longer.mp4", *QUICK)
    assert done.code == 0, done.err
    assert stored(folder / "longer.mp4") == stored(folder / "short.mp4")


def test_extend_under_a_new_short_prompt_keeps_what_that_leaves_out(short: CommandResult, folder: Path) -> None:
    options = ("--prompt", "a red one", "--seed", "77", "-o", folder / "red.mp4", *QUICK)
    done = pavdm("extend", folder / "short.mp4", *options)
    assert "from the video and the seed" in " ".join(done.err.split())
    before = format_prompt(TYPED, 9).text
    assert stored(folder / "red.mp4") == {
        "prompt": "a red one",
        "caption": format_prompt("red", 77, before).text,
    }
    assert "sailboat" in stored(folder / "red.mp4")["caption"]
    line = pavdm("info", folder / "red.mp4").out.splitlines()[-1]
    assert shlex.quote(stored(folder / "red.mp4")["caption"]) in line


@pytest.mark.parametrize("caption", [None, 7, [], {"a": 1}, "", "zebra"])
def test_a_stored_caption_of_another_kind_counts_for_nothing(folder: Path, caption: object) -> None:
    path = folder / "odd.mp4"
    writer = VideoWriter(path, 96, 64, 8, {"pavdm": "0.1.0", "prompt": "a kite", "caption": caption})
    writer.write(grays(9, 64, 96))
    writer.finish()
    assert pavdm("info", path).code == 0
    done = pavdm("extend", path, "--seed", "3", "-o", folder / f"on-{caption!s:.2}.mp4", "--force", *QUICK)
    assert done.code == 0, done.err
    assert format_prompt("a kite", 3).text in " ".join(done.err.split())
    path.unlink()
