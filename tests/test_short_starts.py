"""`--start noised` on a video shorter than a window: the note states what the sampler re-noises."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from support import clips
from support.command import pavdm
from support.exact import NOISE, clean_latents, sigmas_of
from support.requests import make_request

from pavdm_cli.generation import extend
from pavdm_cli.generation.request import Extension
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.sampling.loop import state_from_renoised_clip
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rn


def video(path: Path, frames: int) -> Path:
    return clips.make(path / f"{frames}.mp4", clips.grays(frames, 64, 96), clips.ClipSpec(rate=Fraction(8)))


def said(path: Path, frames: int, start: str = "noised", **how: object) -> list[str]:
    sampling = {"seed": 1, "device": "cpu", **how}
    request = make_request("", frames=4, **sampling, extension=Extension(video(path, frames), start))
    return extend.start_notes(resolve(request), extend.open_source(request))


def test_a_video_of_a_whole_window_is_noised_without_a_word(tmp_path):
    assert said(tmp_path, 24) == said(tmp_path, 40) == []
    assert said(tmp_path, 8, start="clip") == []


def test_a_shorter_one_is_told_how_much_of_it_is_noised_again(tmp_path):
    (line,) = said(tmp_path, 13)
    assert line == ("the video's end has 12 of the 24 frames of a full window at 8 fps: 2 of 5 chunks are re-noised")


def test_one_that_is_too_short_is_told_that_nothing_is_noised(tmp_path):
    (line,) = said(tmp_path, 5)
    assert line.endswith("has 4 of the 24 frames of a full window at 8 fps: nothing is re-noised, as with "
                         "--start clip")  # fmt: skip


def test_a_method_with_one_chunk_in_its_window_has_nothing_to_noise(tmp_path):
    (line,) = said(tmp_path, 40, method="rn")
    assert line == "--start noised is the same as --start clip: --method rn has one chunk in its window"


@pytest.mark.parametrize("schedule", [pa(6, 6, 2), pa(6, 6, 2, context=False), pa(2, 8, 2), fifo(4, 4, 2), rn(4, 4, 2)])
@pytest.mark.parametrize("num_given", [0, 1, 2, 3, 5, 8, 40])
def test_as_many_chunks_are_noised_as_are_told(schedule: Schedule, num_given: int):
    start = state_from_renoised_clip(schedule, clean_latents(range(-num_given, 0)), NOISE, sigmas_of(schedule))
    assert len(start.chunks) == schedule.num_renoised(num_given)
    assert start.window.shape[1] == schedule.num_renoised(num_given) * schedule.chunk
    never = state_from_renoised_clip(
        replace(schedule, context=num_given), clean_latents(range(-num_given, 0)), NOISE, sigmas_of(schedule)
    )
    assert torch.equal(never.window, never.window[:, :0])


def test_the_command_says_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--frames", "1", "--steps", "6", "--seed", "1", "--threads", "1", "-o", "longer.mp4")
    result = pavdm("extend", str(video(tmp_path, 4)), "--start", "noised", *small)
    assert result.code == 0, result.err
    assert "nothing is re-noised, as with --start clip" in result.err
