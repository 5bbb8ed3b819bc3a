"""Where frames depend on earlier latents, a redone span ends with a chunk of old latents, decoded after new ones."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.command import pavdm
from support.decoding import decoded_frames
from support.interrupted import RED, made, snapshots
from test_video_splice import check_outside, packets

from pavdm_cli.generation import checkpoint, pipeline
from pavdm_cli.sampling import loop
from pavdm_cli.video import read_metadata

# Segments begin at frames 0, 39, 71, 103 and 135.
WORDS = (*RED, "--size", "96x64", "--fps", 16, "--frames", 160, "--keep-state")
JOIN = 63  # the last chunk of the span has frames 63 to 70


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    made(*WORDS, name=str(folder / "v.mp4"))
    return folder


@pytest.fixture(autouse=True)
def in_folder(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(film, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def redone(end: str = "3.9s", name: str = "new.mp4") -> tuple[str, str]:
    """The first and last frame of the span, as printed."""
    said = pavdm("redo", "v.mp4", "--from", "2.5s", "--to", end, "--seed", 5, "-o", name)
    assert said.code == 0, said.err
    (span,) = re.findall(r"frames (\d+) to (\d+)$", said.err, re.MULTILINE)
    return span


def pixels(name: str) -> NDArray[np.int64]:
    return np.stack(decoded_frames(Path(name))).astype(np.int64)


def distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Mean absolute difference, of 255."""
    return float(np.abs(a - b).mean())


def test_the_last_frames_of_a_span_are_those_of_the_video_after_a_frame_between_new_and_old() -> None:
    assert redone() == ("39", "70")
    check_outside(Path("v.mp4"), Path("new.mp4"), 39, 71)
    old, new = pixels("v.mp4"), pixels("new.mp4")
    assert distance(new[JOIN + 1 : 71], old[JOIN + 1 : 71]) < 2.2  # encoded again
    assert distance(new[JOIN - 1], old[JOIN - 1]) > 3
    to_new, to_old = distance(new[JOIN], new[JOIN - 1]), distance(new[JOIN], new[JOIN + 1])
    assert max(to_new, to_old) < 0.75 * distance(new[JOIN - 1], new[JOIN + 1])


@pytest.mark.integration
@pytest.mark.parametrize(("end", "last"), [("3.9s", "70"), ("3.95s", "102"), ("8.3s", "159"), ("9.9s", "159")])
def test_all_frames_up_to_the_requested_end_are_new(end: str, last: str) -> None:
    assert redone(end) == ("39", last)
    check_outside(Path("v.mp4"), Path("new.mp4"), 39, int(last) + 1)


@pytest.mark.integration
def test_without_stored_latents_the_last_chunk_is_encoded_and_decoded() -> None:
    Path("v.partial.mp4.latents").unlink()
    assert redone() == ("39", "70")
    check_outside(Path("v.mp4"), Path("new.mp4"), 39, 71)
    assert distance(pixels("new.mp4")[JOIN + 1 : 71], pixels("v.mp4")[JOIN + 1 : 71]) < 4


@pytest.mark.integration
def test_an_interruption_around_the_kept_chunk_changes_nothing() -> None:
    cuts = snapshots("redo", "v.mp4", "--from", "2.5s", "--to", "3.9s", "--seed", 5, name="new.mp4")
    assert len(cuts) == 4  # three new chunks and the kept one
    for cut in cuts:
        assert pavdm("resume", cut / "new.mp4").code == 0
        assert (cut / "new.mp4").read_bytes() == Path("new.mp4").read_bytes()


@pytest.mark.integration
def test_the_printed_command_makes_the_same_frames() -> None:
    redone()
    command = shlex.split(pavdm("info", "new.mp4").out.splitlines()[-1])
    assert command[1:6] == ["redo", str(Path("v.mp4").absolute()), "--from", "2.4375s", "--to"]
    assert pavdm(*command[1:], "-o", "again.mp4").code == 0
    assert packets(Path("again.mp4")) == packets(Path("new.mp4"))


@pytest.mark.integration
def test_another_prompt_ends_with_the_new_frames() -> None:
    made("redo", "v.mp4", "--from", "2.5s", "--to", "3.9s", "--prompt", "a green boat", name="new.mp4")
    ranges = (read_metadata("new.mp4") or {})["prompt_ranges"]
    assert [part["end"] for part in ranges] == [39 / 16, JOIN / 16, None]


@pytest.mark.integration
def test_a_redo_of_a_version_that_kept_no_chunk_is_not_resumed() -> None:
    (cut, *_) = snapshots("redo", "v.mp4", "--from", "2.5s", "--to", "3.9s", "--seed", 5, name="new.mp4")
    path = cut / "new.partial.mp4.state"
    stored = checkpoint.read_checkpoint(path)
    del stored.run.metadata["redo"][-1]["new_end"]
    checkpoint.write_checkpoint(path, stored)
    result = pavdm("resume", cut / "new.mp4")
    assert result.code == 2
    assert "the last chunk of the span" in result.err


@pytest.mark.integration
def test_wrong_latents_of_the_kept_chunk_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    redone(name="right.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "tail", lambda latents, length: loop.tail(latents, length).flip(-1))
        redone()
    assert packets(Path("new.mp4")) != packets(Path("right.mp4"))
