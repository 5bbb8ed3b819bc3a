"""Values that are too long or too large are one line, before any slow work; what is accepted can be read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import clips
from support.command import QUICK, pavdm
from support.requests import make_request

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.generation.extend import open_source
from pavdm_cli.generation.request import Extension, parse_size
from pavdm_cli.generation.timeline import MAX_PROMPT_LENGTH, PromptChange, check_timeline, parse_time
from pavdm_cli.video import VideoWriter
from pavdm_cli.video.io import input as video_input
from pavdm_cli.video.io.input import open_input

DIGITS = "9" * 5000  # more than Python converts to a number


@pytest.mark.parametrize("text", [DIGITS, f"{DIGITS}s", f"{DIGITS}:00:00", f"1.{DIGITS}", f"{DIGITS}h"])
def test_a_time_of_thousands_of_digits_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="is not a valid time") as raised:
        parse_time(text)
    assert len(raised.value.message) < 100


@pytest.mark.parametrize("text", [f"{DIGITS}x64", f"64x{DIGITS}", "²x64", "0x64", "64x0"])
def test_a_size_of_thousands_of_digits_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="--size must be WIDTHxHEIGHT") as raised:
        parse_size(text)
    assert len(raised.value.message) < 150


@pytest.mark.parametrize("words", [("--at", f"{DIGITS}s", "at night"), ("--size", f"{DIGITS}x64")])
def test_the_command_says_so_in_one_line(words: tuple[str, ...]) -> None:
    result = pavdm("generate", "a ball", *words)
    assert (result.code, result.out) == (2, "")
    assert len(result.err) < 500


def test_a_prompt_that_could_not_be_read_back_is_rejected(tmp_path: Path) -> None:
    longest = "ball " * (MAX_PROMPT_LENGTH // 5)
    make_request(longest)
    with pytest.raises(UsageError, match="the prompt has 20001 characters, more than 20000"):
        make_request(longest + "s")
    with pytest.raises(UsageError, match="the prompt at 1s has 20001 characters"):
        check_timeline(True, [PromptChange(1.0, longest + "s")], 0.0, None)
    result = pavdm("generate", longest + "s", *QUICK, "-o", tmp_path / "v.mp4")
    assert (result.code, result.out) == (2, "")
    result = pavdm("generate", longest, "--frames", 4, *QUICK, "-o", tmp_path / "v.mp4")
    assert result.code == 0, result.err
    assert f'"prompt": "{longest[:100]}' in pavdm("info", tmp_path / "v.mp4", "--json").out


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    """A video of 120 frames per second."""
    with VideoWriter(tmp_path / "fast.mp4", 48, 32, 120) as writer:
        writer.write(np.zeros((30, 32, 48, 3), np.uint8))
        writer.finish()
    return tmp_path / "fast.mp4"


def test_a_day_of_any_frame_rate_can_be_appended(fast: Path) -> None:
    day = 24 * 3600
    request = make_request("a ball", seconds=float(day), extension=Extension(fast))
    source = open_source(request)
    assert source.frames == day * 120
    replace(request, seconds=None, frames=source.frames)  # as its checkpoint stores it
    with pytest.raises(UsageError, match="is not a length from 1 frame to 24 hours"):
        make_request("a ball", seconds=day + 1.0, extension=Extension(fast))
    with pytest.raises(UsageError, match="more than 24 hours at 120 fps"):
        open_source(make_request("a ball", frames=day * 120 + 1, extension=Extension(fast)))
    with pytest.raises(UsageError, match="is not a length from 1 frame to 24 hours"):
        make_request("a ball", frames=day * 120)


def test_a_file_that_may_not_be_read_is_an_input_error(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(video_input, "is_truncated", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"), open_input(fast):
        pass


def test_audio_of_an_unknown_codec_is_described(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "v.mkv", clips.grays(8), clips.ClipSpec(audio="pcm_s16le"))
    data = path.read_bytes()
    assert b"A_PCM/INT/LIT" in data
    path.write_bytes(data.replace(b"A_PCM/INT/LIT", b"A_ZZZ/INT/LIT"))
    result = pavdm("info", path, "--json")
    assert result.code == 0, result.err
    assert [(each["codec"], each["sample_rate"]) for each in json.loads(result.out)["file"]["audio"]] == [(None, None)]
    assert "audio" in pavdm("info", path).out
