"""A video to continue: what is refused, and where the longer one goes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.command import pavdm
from support.requests import make_request

from pavdm_cli.generation import extend
from pavdm_cli.generation.extend import resample_frames
from pavdm_cli.generation.request import Extension
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.video import VideoWriter

WORDS = ("-p", "a red ball", "--frames", "2", "--seed", "1", "--threads", "1", "--steps", "6")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("stem", ["x" * 240, "長" * 80])
def test_an_input_with_a_long_name_is_continued_under_a_shorter_one(tmp_path: Path, stem: str) -> None:
    make(tmp_path / f"{stem}.mp4", grays(3))
    said = pavdm("extend", f"{stem}.mp4", *WORDS)
    assert said.code == 0
    name = said.out.strip()
    assert name.endswith("-extended.mp4")
    assert name.startswith(stem[:60])
    assert (tmp_path / name).exists()
    assert "\n5 frames, 2 of them new, in " in said.err


def test_uncompressed_sound_is_written_to_matroska_unless_a_name_is_given(tmp_path: Path) -> None:
    make(tmp_path / "in.mov", grays(3), ClipSpec(audio="pcm_s24le"))
    said = pavdm("extend", "in.mov", *WORDS)
    assert (said.code, said.out.strip()) == (0, "in-extended.mkv")
    assert "note: written as .mkv, which can copy pcm_s24le audio" in said.err
    said = pavdm("extend", "in.mov", *WORDS, "--audio", "drop")
    assert (said.code, said.out.strip()) == (0, "in-extended.mp4")
    said = pavdm("extend", "in.mov", *WORDS, "-o", "out.mp4")
    assert (said.code, said.out.strip()) == (0, "out.mp4")
    assert "note: pcm_s24le audio stored losslessly as flac" in said.err


def test_the_new_frames_alone_have_a_name_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "in.mp4", grays(3))
    names = [pavdm("extend", "in.mp4", *WORDS, "--only-new").out.strip() for _ in range(2)]
    assert names == ["in-continuation.mp4", "in-continuation-2.mp4"]


@pytest.mark.parametrize(
    ("size", "aspect", "model", "enlarged"),
    [
        ((64, 96), 1, "pocket", ""),
        ((256, 384), 1, "pocket", ""),
        ((64, 36), 1, "pocket", "2.7 times"),
        ((36, 64), 1, "pocket", "1.2 times"),
        ((96, 96), Fraction(3, 2), "pocket", ""),
        ((64, 36), 1, "opensora-v1.2", "3.1 times"),
    ],
)
def test_another_shape_than_the_model_makes_is_noted(
    size: tuple[int, int], aspect: Fraction, model: str, enlarged: str, tmp_path: Path
) -> None:
    source = make(tmp_path / "in.mp4", grays(3, *size), ClipSpec(aspect=Fraction(aspect)))
    request = make_request("", model=model, frames=4, device="cpu", seed=1, extension=Extension(source))
    lines = extend.shape_notes(resolve(request), extend.open_source(request))
    assert len(lines) == bool(enlarged)
    assert all(enlarged in line and ("choose a --size" in line) == (model != "pocket") for line in lines)


def test_a_tall_video_is_noted_when_it_is_extended(tmp_path: Path) -> None:
    make(tmp_path / "tall.mp4", grays(3, 64, 36))
    said = pavdm("extend", "tall.mp4", *WORDS, "--plan")
    assert "note: pocket makes frames of 96x64 and sees only the center of this 36x64 video" in said.err


def test_a_frame_every_half_hour_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "in.mkv", grays(3), ClipSpec(times=[0, 2002, 4004]))
    said = pavdm("extend", "in.mkv", *WORDS)
    assert said.code == 3
    assert "shows a frame every 2002 s" in said.err


def test_a_frame_shown_for_several_frames_of_the_source_is_one_object():
    source = SimpleNamespace(frames=11, video=SimpleNamespace(rate=Fraction(24)))
    chunks = list(np.arange(4, dtype=np.uint8).reshape(2, 2, 1, 1, 1))
    shown = [frame for chunk in resample_frames(chunks, 8, source) for frame in chunk]
    assert [int(frame.item()) for frame in shown] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert len({id(frame) for frame in shown}) == 4


def write_generated(path: Path, **metadata: object) -> Path:
    """A short video with the metadata of one that pavdm generated."""
    with VideoWriter(path, 96, 64, 8, metadata={"pavdm": "1", "prompt": "a red ball", **metadata}) as writer:
        writer.write(np.stack(grays(3, 64, 96)))
    return path


def test_a_video_is_continued_as_it_was_made(tmp_path: Path) -> None:
    source = write_generated(tmp_path / "in.mp4", model="pocket", size="192x128", fps=16)
    result = pavdm("extend", source, *WORDS, "--json")
    assert result.code == 0, result.err
    stored = json.loads(result.out)["metadata"]
    assert (stored["model"], stored["size"], stored["fps"]) == ("pocket", "192x128", 16)
    result = pavdm("extend", source, *WORDS, "--json", "--size", "96x64", "--fps", "8", "--force")
    stored = json.loads(result.out)["metadata"]
    assert (stored["size"], stored["fps"]) == ("96x64", 8)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"model": "skyreels-v2-df-1.3b", "size": "848x480", "fps": 24, "lora": ["style.safetensors:1.0"]}),
        ({"fps": 16.0, "lora": []}, {"size": "848x480", "fps": 16.0, "lora": ["style.safetensors:1.0"]}),
        ({"size": "240p"}, {"size": "240p", "fps": 24}),
        ({"aspect": "1:1"}, {"size": None, "fps": 24}),
        ({"model": "pocket"}, {"model": "pocket", "size": None, "fps": None, "lora": None}),
        ({"model": "skyreels-v2-df-1.3b"}, {"size": "848x480", "fps": 24}),
    ],
)
def test_settings_that_are_not_given_are_those_of_the_video(
    values: dict[str, object], expected: dict[str, object], tmp_path: Path
) -> None:
    made_with = {"model": "skyreels-v2-df-1.3b", "size": "848x480", "fps": 24, "lora": ["style.safetensors:1.0"]}
    source = write_generated(tmp_path / "in.mp4", **made_with)
    settings = extend.inherit_settings({"size": None, "fps": None, "seed": 1, **values}, source)
    assert expected.items() <= ({"lora": None} | settings).items()
    assert settings["seed"] == 1


def test_a_video_of_another_origin_is_continued_by_the_default_model(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", grays(3))
    assert extend.inherit_settings({"model": None}, source) == {"model": "pocket"}
    assert extend.inherit_settings({}, tmp_path / "missing.mp4") == {"model": "pocket"}


def test_a_model_that_is_no_longer_there_is_named_with_its_video(tmp_path: Path) -> None:
    source = write_generated(tmp_path / "in.mp4", model=str(tmp_path / "gone"))
    result = pavdm("extend", source, *WORDS)
    assert result.code == 5
    assert f"in.mp4 was made by {tmp_path / 'gone'}" in result.err
    assert "choose a model with --model" in result.err
    assert pavdm("extend", source, *WORDS, "--model", "pocket").code == 0
