"""A folder of videos: captions from a table or from text files, and messages about skipped files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pavdm_cli.errors import InputError
from pavdm_cli.models.opensora.prompt import clean
from pavdm_cli.training.finetune.dataset import MAX_LISTED, Skipped, VideoItem, find_captioned_videos, summarize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files named like videos in a folder and a subfolder, and files to ignore."""
    for name in ("a.mp4", "B.MOV", "inner/c.webm", "inner/._d.mp4", ".hidden/e.mp4", "notes.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def captions_of(folder: Path, videos: list[VideoItem]) -> dict[str, str]:
    return {video.path.relative_to(folder).as_posix(): video.caption for video in videos}


def is_usable(caption: str) -> bool:
    return bool(clean(caption))


def test_captions_are_read_from_text_files(folder):
    (folder / "a.txt").write_text("\ufeffa red ball\n", encoding="utf-8")
    (folder / "inner" / "c.txt").write_text("a boat", encoding="utf-8")
    videos, skipped = find_captioned_videos(folder, is_usable)
    assert captions_of(folder, videos) == {"a.mp4": "a red ball", "inner/c.webm": "a boat"}
    assert skipped == [Skipped(folder / "B.MOV", "without a caption")]


@pytest.mark.parametrize("head", ["path,text", "video,caption", " Path ,Text", "id,text,path"])
@pytest.mark.parametrize("table", ["captions.csv", "Captions.CSV", "anything.csv"])
def test_captions_are_read_from_a_table(head, table, folder):
    rows = {"a.mp4": '"a red ball, high up"', "inner/../B.MOV": "a kite", str(folder / "inner" / "c.webm"): "a boat"}
    order = ("0,{text},{path}" if head.startswith("id") else "{path},{text}").format
    lines = [order(path=path, text=text) for path, text in rows.items()]
    (folder / table).write_text("\n".join([head, *lines]), encoding="utf-8-sig")
    videos, skipped = find_captioned_videos(folder, is_usable)
    assert captions_of(folder, videos) == {
        "a.mp4": "a red ball, high up",
        "B.MOV": "a kite",
        "inner/c.webm": "a boat",
    }
    assert skipped == []


def test_table_rows_override_text_files_unless_empty(folder):
    (folder / "captions.csv").write_text("path,text\na.mp4,from the table\ninner/c.webm,\nB.MOV\n")
    (folder / "other.csv").write_text("nothing")
    for name in ("a", "inner/c"):
        (folder / f"{name}.txt").write_text("from a text file")
    videos, skipped = find_captioned_videos(folder, is_usable)
    assert captions_of(folder, videos) == {"a.mp4": "from the table", "inner/c.webm": "from a text file"}
    assert [file.path.name for file in skipped] == ["B.MOV"]


def test_missing_videos_and_empty_captions_are_reported(folder):
    (folder / "captions.csv").write_text("path,text\ngone.mp4,a ball\na.mp4,http://x.com\nB.MOV,a kite\n")
    (folder / "inner" / "c.txt").write_bytes(b"\xff\xfe\xff")
    videos, skipped = find_captioned_videos(folder, is_usable)
    assert captions_of(folder, videos) == {"B.MOV": "a kite"}
    assert {file.path.name: file.reason for file in skipped} == {
        "a.mp4": "whose caption has no usable text",
        "c.webm": "without a caption",
        "gone.mp4": "missing",
    }


WRONG = {
    "two tables": ({"x.csv": b"path,text", "y.csv": b"path,text"}, "has 2 tables: x.csv, y.csv"),
    "no such column": ({"x.csv": b"path,words\na,b"}, "has no column text or caption, only: path, words"),
    "nothing in it": ({"x.csv": b""}, "has no column path or video, only: nothing"),
    "other bytes": ({"x.csv": b"path,text\na,\xff\xff"}, "cannot be read as a table"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_unreadable_table_is_one_error_line(case, folder):
    files, message = WRONG[case]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as excinfo:
        find_captioned_videos(folder, is_usable)
    assert excinfo.value.hint
    assert excinfo.value.exit_code == 3


@pytest.mark.parametrize("place", ["nowhere", "a.mp4"])
def test_a_missing_folder_is_one_error_line(place, folder):
    with pytest.raises(InputError, match="is not a folder"):
        find_captioned_videos(folder / place, is_usable)


def test_skipped_videos_are_counted_by_reason():
    skipped = [Skipped(Path(f"{k}.mp4"), "without a caption" if k % 3 else f"unreadable: {k}") for k in range(14)]
    lines = summarize(skipped, 7)
    assert lines[0] == "7 videos to train on, 14 skipped: 9 without a caption, 5 unreadable"
    assert lines[1] == "skipped: 0.mp4 (unreadable: 0)"
    assert len(lines) == MAX_LISTED + 2
    assert lines[-1] == "and 4 more"
    assert summarize([], 3) == ["3 videos to train on, 0 skipped"]
    assert summarize([], 1) == ["1 video to train on, 0 skipped"]
