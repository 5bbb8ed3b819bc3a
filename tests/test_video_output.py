"""Where a video goes: refused before any work, or free and safe."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video import check_output, default_name


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("clip.txt", UsageError, ".mp4, .mkv, .webm, .gif"),
        ("clip", UsageError, ".mp4, .mkv, .webm, .gif"),
        ("taken.mp4", OutputError, "--force"),
        ("folder.mp4", OutputError, "folder"),
        ("missing/clip.mp4", OutputError, "does not exist"),
        (f"{'x' * 300}.mp4", OutputError, "too long"),
    ],
)
def test_a_place_that_takes_no_video_is_refused_before_any_work(
    tmp_path: Path, name: str, kind: type[OutputError | UsageError], words: str
) -> None:
    (tmp_path / "taken.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind) as caught:
        check_output(tmp_path / name)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert sorted(tmp_path.iterdir()) == before


def test_force_takes_a_name_that_exists_and_touches_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "taken.MP4").write_bytes(b"older")
    (tmp_path / "taken.partial.MP4").write_bytes(b"interrupted")
    assert check_output(tmp_path / "taken.MP4", force=True) == tmp_path / "taken.MP4"
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"older", b"interrupted"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="cannot write"):
        check_output(tmp_path / "clip.mp4")


def test_a_default_name_is_made_of_the_prompt_and_the_seed_and_is_free(tmp_path: Path) -> None:
    name = default_name("A red balloon, drifting — over Häuser!", 42, tmp_path)
    assert name == tmp_path / "a-red-balloon-drifting-over-hauser-42.mp4"
    name.touch()
    assert default_name("A red balloon drifting over hauser", 42, tmp_path).stem.endswith("-42-2")
    (tmp_path / "a-red-balloon-drifting-over-hauser-42-2.partial.mp4").touch()
    assert default_name("A red balloon drifting over hauser", 42, tmp_path).stem.endswith("-42-3")


@pytest.mark.parametrize("prompt", ["", "气球", "../../etc/passwd", "x" * 500, "word " * 100])
def test_a_default_name_is_short_and_stays_in_its_folder(tmp_path: Path, prompt: str) -> None:
    name = default_name(prompt, 7, tmp_path, ".gif")
    assert name.parent == tmp_path
    assert len(name.name) <= 60
    assert name.stem.endswith("-7")
