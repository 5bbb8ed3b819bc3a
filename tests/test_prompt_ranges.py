"""Which part of a video shows which prompt, after a timeline, redone spans and continuations."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command import pavdm
from support.interrupted import QUICK, made, snapshots

from pavdm_cli.evaluation.probe import SIZE
from pavdm_cli.evaluation.prompt_spans import scene_of, stored_spans
from pavdm_cli.generation.metadata import valid_fields
from pavdm_cli.generation.prompt_ranges import (
    PromptRange,
    extended_ranges,
    prompt_ranges,
    redone_ranges,
    timeline_ranges,
)
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.video import VideoWriter, read_metadata

BALL, BOAT, KITE = (
    "a red ball bouncing over the sea at sunset",
    "a white boat drifting on the sea at night",
    "a blue kite circling over dunes by day",
)
WINDOW = 3.0  # seconds: twelve latents of two frames
VIDEO = {"prompt": BALL, "model": "pocket", "fps": 8, "window": 12, "chunk": 2, "method": "pa"}
CHANGED = VIDEO | {"timeline": [{"at": 20.0, "prompt": KITE}], "blend": 1.0}
CHANGE = [PromptRange(BALL, 0, 20, 0, WINDOW), PromptRange(KITE, 20, inf, 0.5 + 1 + WINDOW)]


def redo(ranges: list[PromptRange], prompt: str, start: float, end: float, **changes: Any) -> list[PromptRange]:
    return redone_ranges(ranges, VIDEO | {"prompt": prompt} | changes, start, end, 0.0)


def test_a_change_of_the_timeline_has_a_transition_on_both_sides() -> None:
    assert timeline_ranges(VIDEO) == [PromptRange(BALL)]
    assert prompt_ranges(CHANGED) == CHANGE
    clip = timeline_ranges(CHANGED | {"method": "rn"})
    assert clip[1].fade_in == 2 * WINDOW + 1


def test_a_redo_changes_only_its_own_frames() -> None:
    once = redo([PromptRange(BALL)], BOAT, 6, 15)
    assert once == [PromptRange(BALL, 0, 6), PromptRange(BOAT, 6, 15, WINDOW, WINDOW), PromptRange(BALL, 15)]
    assert redo([PromptRange(BALL)], BOAT, 6, inf) == [PromptRange(BALL, 0, 6), PromptRange(BOAT, 6, inf, WINDOW)]
    assert redo([PromptRange(BALL)], BOAT, 0, inf) == [PromptRange(BOAT)]


def test_a_second_redo_replaces_its_part_of_the_first() -> None:
    once = redo([PromptRange(BALL)], BOAT, 6, 15)
    assert redo(once, KITE, 12, 18)[1:] == [
        PromptRange(BOAT, 6, 12, WINDOW),
        PromptRange(KITE, 12, 18, WINDOW, WINDOW),
        PromptRange(BALL, 18),
    ]
    assert redo(once, KITE, 3, 18) == redo([PromptRange(BALL)], KITE, 3, 18)
    again = redo(once, BALL, 9, 12)
    assert [str(span).split(":")[0] for span in again] == [
        "0s to 6s",
        "6s to 9s",
        "9s to 12s",
        "12s to 15s",
        "15s to the end",
    ]


def test_the_same_prompt_leaves_everything_as_it_was() -> None:
    assert redo([PromptRange(BALL)], BALL, 6, 15) == [PromptRange(BALL)]
    assert redone_ranges(CHANGE, CHANGED, 3, 30, 0.0) == CHANGE
    assert redone_ranges(CHANGE, CHANGED, 21, 24, 0.0)[-1].end == inf


def test_a_cut_keeps_what_is_left_of_a_transition() -> None:
    before, middle, after = redo(CHANGE, BOAT, 18, 22)
    assert before == PromptRange(BALL, 0, 18, 0, 1)
    assert (middle.start, middle.end, middle.fade_in, middle.fade_out) == (18, 22, WINDOW, WINDOW)
    assert after == PromptRange(KITE, 22, inf, 2.5)


def test_a_continuation_has_the_ranges_of_its_source_and_its_own() -> None:
    both = [PromptRange(BALL, 0, 10), PromptRange(BOAT, 10, inf, WINDOW)]
    boat = VIDEO | {"prompt": BOAT}
    assert extended_ranges(VIDEO, boat, 10, only_new=False) == both
    assert extended_ranges(VIDEO, boat, 10, only_new=True) == [PromptRange(BOAT, 0, inf, WINDOW)]
    assert extended_ranges(VIDEO, VIDEO, 10, only_new=False) == [PromptRange(BALL)]
    stored = boat | {"source": "v.mp4", "prompt_ranges": [span.to_json() for span in both]}
    third = extended_ranges(stored, VIDEO | {"prompt": KITE}, 25, only_new=False)
    assert third == [both[0], PromptRange(BOAT, 10, 25, WINDOW), PromptRange(KITE, 25, inf, WINDOW)]


def test_nothing_is_known_of_other_programs_images_and_models() -> None:
    for source in ({}, VIDEO | {"source": "v.mp4"}, VIDEO | {"image": "i.png"}, VIDEO | {"model": "opensora-v1.2"}):
        assert extended_ranges(source, VIDEO, 10, only_new=False) == []
    assert redo([], BOAT, 6, 15) == []


@pytest.mark.parametrize(
    "wrong",
    [None, {}, [{}], [{"prompt": 1}], [CHANGE[0].to_json() | {"end": "x"}], [CHANGE[0].to_json() | {"more": 1}]],
)
def test_damaged_ranges_are_ignored(wrong: object) -> None:
    fields, lines = valid_fields(VIDEO | {"prompt_ranges": wrong})
    assert "prompt_ranges" not in fields
    assert len(lines) == 1
    assert valid_fields({"prompt_ranges": [span.to_json() for span in CHANGE]})[1] == []


def test_every_range_is_scored_with_its_own_prompt(tmp_path: Path) -> None:
    ranges = redo([PromptRange(BALL)], KITE, 6, 18)
    metadata = VIDEO | {"source": "v.mp4", "prompt_ranges": [span.to_json() for span in ranges]}
    spans = stored_spans(write(tmp_path / "v.mp4", np.zeros((2, 64, 96, 3), np.uint8), metadata))
    assert [(span.caption, span.start, span.end) for span in spans] == [(BALL, 0, 6), (KITE, 9, 15), (BALL, 18, inf)]


def write(path: Path, video: np.ndarray, metadata: dict[str, Any]) -> Path:
    with VideoWriter(path, 96, 64, 8, metadata) as writer:
        writer.write(video)
        return writer.finish()


@pytest.mark.integration
def test_a_redone_span_is_right_by_its_own_prompt_and_wrong_by_the_first(tmp_path: Path) -> None:
    on, times = canvas(SIZE, 4), torch.arange(24 * 8)[None] / 8
    video = to_bytes(render([scene_of(BALL)], times, on).frames[0])
    video[48:144] = to_bytes(render([scene_of(KITE)], times[:, :96], on).frames[0])
    ranges = redo([PromptRange(BALL)], KITE, 6, 18)
    write(tmp_path / "v.mp4", video, VIDEO | {"prompt_ranges": [span.to_json() for span in ranges]})
    write(tmp_path / "w.mp4", video, VIDEO)
    lines = pavdm("evaluate", tmp_path / "v.mp4", tmp_path / "w.mp4", "--json").out.splitlines()
    right, wrong = (json.loads(line)["metrics"] for line in lines)
    assert right["adherence_object"] == right["adherence_place"] == 1
    assert wrong["adherence_object"] < 0.7


@pytest.mark.integration
def test_redo_and_extend_store_which_part_shows_which_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made("generate", "a ball", "--at", "9s: a kite", *QUICK, "--frames", 120, name="v.mp4")
    made("redo", "v.mp4", "--from", "3s", "--to", "5s", "--seed", 5, name="same.mp4")
    same = read_metadata("same.mp4") or {}
    assert valid_fields(same) == (same, [])
    assert "prompt_ranges" not in same
    assert "redo" in pavdm("info", "same.mp4").out
    cuts = snapshots("redo", "v.mp4", "--from", "3s", "--prompt", BOAT, name="new.mp4")
    stored = read_metadata("new.mp4") or {}
    ranges = prompt_ranges(stored)
    assert [(span.start, span.end) for span in ranges] == [(0, 3), (3, inf)]
    assert f"3s to the end: {BOAT}" in pavdm("info", "new.mp4").out
    whole = Path("new.mp4").read_bytes()
    monkeypatch.chdir(cuts[0])
    assert pavdm("resume", "new.partial.mp4").code == 0
    assert Path("new.mp4").read_bytes() == whole
    made("extend", "new.mp4", "--seconds", 1, "--steps", 6, name="longer.mp4")
    longer = read_metadata("longer.mp4") or {}
    assert longer["prompt"] == BOAT
    assert prompt_ranges(longer) == ranges


@pytest.mark.integration
def test_a_redo_with_the_first_of_several_prompts_is_printed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made("generate", BALL, "--at", f"6s: {KITE}", *QUICK, "--frames", 80, name="v.mp4")
    made("redo", "v.mp4", "--from", "6s", "--prompt", BALL, "--seed", 1, name="new.mp4")
    assert f"--prompt '{BALL}'" in pavdm("info", "new.mp4").out.splitlines()[-1]
    ranges = prompt_ranges(read_metadata("new.mp4") or {})
    assert [(span.prompt, span.fade_out) for span in ranges] == [
        (BALL, WINDOW),
        (BALL, 0),
    ]  # before 6 s, a kite appeared
