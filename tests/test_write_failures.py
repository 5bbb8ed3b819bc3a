"""Runs that fail while they write end with an error, and complete files are on the disk before they get their name."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from support.command import QUICK, pavdm

from pavdm_cli.errors import OutputError
from pavdm_cli.generation.latents_file import LatentsWriter
from pavdm_cli.video import VideoWriter, contact_sheet, open_video
from pavdm_cli.video.contact_sheet import write_contact_sheet
from pavdm_cli.video.paths import partial_path
from pavdm_cli.video.write import encode
from pavdm_cli.video.write.executor import SerialExecutor
from pavdm_cli.video.write.external import ExternalEncoder
from pavdm_cli.video.write.gif import GifEncoder

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), np.uint8)


def ends(call: Callable[[], object], timeout: float = 20) -> bool:
    """Whether a call returns or raises in time."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()


def fail() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_flushing_an_executor_that_has_ended_returns(calls: int) -> None:
    executor, done = SerialExecutor(), []
    for number in range(calls):
        executor.submit(lambda number=number: done.append(number))
    executor.join()
    assert ends(executor.flush)
    assert ends(executor.join)
    assert done == [*range(calls)]


def test_an_executor_that_failed_says_so_again() -> None:
    executor = SerialExecutor()
    executor.submit(fail)
    for call in (executor.join, executor.flush, executor.join):
        with pytest.raises(OSError, match="No space left"):
            call()


@pytest.mark.parametrize(("name", "words"), [("v.gif", ()), ("v.mp4", ("--keep-state",))])
def test_a_full_disk_ends_a_run_whose_latents_are_stored(
    name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoder in (GifEncoder, ExternalEncoder):
        monkeypatch.setattr(encoder, "encode", lambda encoder, frame, time: fail())
    monkeypatch.setattr(LatentsWriter, "append", lambda writer, latents: fail())
    result = pavdm("generate", "a red ball", "--frames", 16, *QUICK, *words, "-o", tmp_path / name)
    assert result.code == 4, result.err
    assert "No space left on device" in result.err
    assert not (tmp_path / name).exists()


def test_a_gif_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(encode, "sync_file", lambda path: synced.append((path.name, (tmp_path / "v.gif").exists())))
    result = pavdm("generate", "a red ball", "--frames", 4, *QUICK, "-o", tmp_path / "v.gif")
    assert result.code == 0, result.err
    assert synced == [("v.partial.gif", False)]


@pytest.mark.parametrize("name", ["12:30.mp4", "data:a.mp4", "50%d.mp4"])
def test_a_name_like_an_address_or_a_pattern_is_a_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path(name), 48, 32, 8) as writer:
        writer.write(FRAMES)
        path = writer.close_partial()
    assert path == partial_path(Path(name))
    assert open_video(path.absolute()).frames == len(FRAMES)
    sheet = Path(name).with_suffix(".png")
    write_contact_sheet(sheet, FRAMES.reshape(2, 2, 32, 48, 3))
    assert {file.name for file in tmp_path.glob("*.png")} == {sheet.name}
    with av.open(str(sheet.absolute())) as file:
        assert next(file.decode(video=0)).width == 2 * (48 + 2)


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        contact_sheet.check_sheet(tmp_path / "missing" / "sheet.png")


@pytest.mark.parametrize(
    "name", ["a." + "x" * 240, "é." + "é" * 126, "a ball bounces. " + "then a bird comes " * 13, "b" * 250 + ".mp4"]
)
def test_a_sentence_is_no_suffix(name: str) -> None:
    partial = partial_path(Path(name)).name
    assert ".partial" in partial
    assert len(partial.encode()) <= 255
    assert partial_path(Path(f"{name[:-1]}!")).name != partial


def test_a_prompt_in_place_of_a_file_is_one_line() -> None:
    result = pavdm("info", "a ball bounces. " + "then a bird comes " * 13)
    assert (result.code, result.out) == (3, "")
    assert "does not exist" in result.err
