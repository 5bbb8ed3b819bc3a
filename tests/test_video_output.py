"""Output paths: rejected before any work, or free and writable."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video import (
    EncoderOptions,
    VideoWriter,
    check_output,
    default_output_path,
    partial_path,
    read_metadata,
    resolve_output,
    unused_path,
)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("clip.txt", UsageError, ".mp4, .mkv, .webm, .gif"),
        ("clip", UsageError, ".mp4, .mkv, .webm, .gif"),
        ("taken.mp4", OutputError, "--force"),
        ("folder.mp4", OutputError, "folder"),
        ("missing/clip.mp4", OutputError, "does not exist"),
        ("unfinished.mp4", OutputError, "interrupted run"),
        (f"{'x' * 300}.mp4", OutputError, "too long"),
    ],
)
def test_unwritable_outputs_are_rejected_before_any_work(
    tmp_path: Path, name: str, kind: type[OutputError | UsageError], words: str
) -> None:
    (tmp_path / "taken.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "unfinished.partial.mp4").write_bytes(b"an hour of work")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind) as excinfo:
        check_output(tmp_path / name)
    assert words in f"{excinfo.value.message} {excinfo.value.hint}"
    assert sorted(tmp_path.iterdir()) == before


def test_force_accepts_an_existing_name_without_touching_it(tmp_path: Path) -> None:
    (tmp_path / "taken.MP4").write_bytes(b"older")
    (tmp_path / "taken.partial.MP4").write_bytes(b"interrupted")
    assert check_output(tmp_path / "taken.MP4", force=True) == tmp_path / "taken.MP4"
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"older", b"interrupted"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in folders")
def test_what_is_not_a_regular_file_is_never_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"pipe\.mp4 is not a regular file"):
            check_output(tmp_path / "pipe.mp4", force)
    assert (tmp_path / "pipe.mp4").is_fifo()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_rejected(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="cannot write"):
        check_output(tmp_path / "clip.mp4")


def test_the_default_name_has_prompt_and_seed_and_is_unused(tmp_path: Path) -> None:
    name = default_output_path("A red balloon, drifting — over Häuser!", 42, tmp_path)
    assert name == tmp_path / "a-red-balloon-drifting-over-hauser-42.mp4"
    name.touch()
    assert default_output_path("A red balloon drifting over hauser", 42, tmp_path).stem.endswith("-42-2")
    (tmp_path / "a-red-balloon-drifting-over-hauser-42-2.partial.mp4").touch()
    assert default_output_path("A red balloon drifting over hauser", 42, tmp_path).stem.endswith("-42-3")


@pytest.mark.parametrize("prompt", ["", "气球", "../../etc/passwd", "x" * 500, "word " * 100])
def test_a_default_name_is_short_and_stays_in_its_folder(tmp_path: Path, prompt: str) -> None:
    name = default_output_path(prompt, 7, tmp_path, ".gif")
    assert name.parent == tmp_path
    assert len(name.name) <= 60
    assert name.stem.endswith("-7")


def test_an_empty_partial_file_does_not_block_a_run(tmp_path: Path) -> None:
    (tmp_path / "clip.partial.mp4").touch()
    assert check_output(tmp_path / "clip.mp4") == tmp_path / "clip.mp4"


def test_an_unknown_user_has_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="~nobody-of-that-name does not exist"):
        check_output("~nobody-of-that-name/clip.mp4")


def test_a_folder_as_output_gets_a_default_name(tmp_path: Path) -> None:
    own = partial(default_output_path, "a red ball", 3)
    assert resolve_output(tmp_path, own) == tmp_path / "a-red-ball-3.mp4"
    assert resolve_output(tmp_path / "clip.mkv", own) == tmp_path / "clip.mkv"
    assert resolve_output(None, own) == Path("a-red-ball-3.mp4")


@pytest.mark.skipif(os.name != "posix", reason="Windows renames no open file, so it holds none open")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_two_runs_never_write_the_same_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    frames = np.full((6, 48, 64, 3), 90, np.uint8)
    with VideoWriter(path, 64, 48, 12, {"run": 1}, EncoderOptions(segment=2)) as first:
        first.write(frames)
        with pytest.raises(OutputError, match="another run"):
            check_output(path, force=True)
        with pytest.raises(OutputError, match="another run"):
            VideoWriter(path, 64, 48, 12, {"run": 2})
        first.write(frames)
    assert read_metadata(path) == {"run": 1}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert check_output(path, force=True) == path


def test_a_partial_file_of_an_interrupted_run_is_unlocked(tmp_path: Path) -> None:
    path, frames = tmp_path / "clip.mp4", np.zeros((6, 48, 64, 3), np.uint8)
    cut = VideoWriter(path, 64, 48, 12)
    cut.write(frames)
    cut.close_partial()
    assert check_output(path, force=True) == path
    with VideoWriter(path, 64, 48, 12) as writer:
        writer.write(frames)


# Long names


LONG = {"letters": "x" * 240, "accents": "é" * 120, "signs": "長" * 80, "emoji": "🎈" * 60, "full": "x" * 251}


@pytest.mark.parametrize("kind", LONG)
def test_default_names_fit_the_file_system(tmp_path: Path, kind: str) -> None:
    stem = f"{LONG[kind]}-extended"
    for number in range(3):
        path = unused_path(tmp_path, stem, ".mp4")
        path.touch()
        partial_path(path).touch()
        assert path.name.startswith(LONG[kind][:40])
        assert (number > 0) == path.stem.endswith(f"-{number + 1}")
    assert len(list(tmp_path.iterdir())) == 6


def test_long_output_names_are_accepted(tmp_path: Path) -> None:
    first, second = (tmp_path / f"{'x' * 250}{end}.mp4" for end in "ab")
    for path in (first, second):
        assert check_output(path) == path
        with VideoWriter(path, 64, 48, 10) as writer:
            writer.write(np.zeros((2, 48, 64, 3), np.uint8))
    assert partial_path(first) != partial_path(second)
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_overlong_output_names_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 200 + ".mp4")
    assert resolve_output(path, lambda folder: folder) == path
    with pytest.raises(OutputError, match="too long, 404 bytes"):
        check_output(path)
