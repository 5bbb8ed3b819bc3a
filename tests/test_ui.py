"""The terminal interface: tables that lose nothing, and text in any locale."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from pavdm_cli import app, ui
from pavdm_cli.bench import throughput
from pavdm_cli.commands import train
from pavdm_cli.runtime.printable import format_estimate

LONG = "a path " + "x" * 300 + " goes on"


@pytest.mark.parametrize("aside", [False, True])
def test_a_row_is_a_line_where_there_is_no_terminal(aside: bool, capsys: pytest.CaptureFixture[str]) -> None:
    ui.show_table("title", ("name", ""), [("one", LONG), ("twenty", "2")], aside)
    lines = capsys.readouterr()[aside].splitlines()
    assert lines == ["title", "name", f"one     {LONG}", "twenty  2"]


def test_a_title_may_begin_with_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    ui.show_table("\ntime", ("", ""), [("a", "b")])
    assert capsys.readouterr().out.splitlines() == ["", "time", "a  b"]


def test_a_title_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    ui.show_table(LONG, ("", ""), [("a", "b")])
    assert capsys.readouterr().out.splitlines() == [LONG, "a  b"]


def terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal in place of standard output."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_names_in_the_first_column_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(80, monkeypatch)
    name = "skyreels-v2-df-14b-540p"
    ui.show_table("", ("model", "pixels", "on disk", "what"), [(name, "960x544", "not downloaded", "word " * 40)])
    assert name in screen.getvalue()
    assert screen.getvalue().count("word") == 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (119.9, "119.9 s"), (600, "10 min"), (9000, "2.5 h"), (331107.3, "3.8 days")],
)
def test_a_duration_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_estimate(seconds) == text


def test_a_narrow_terminal_breaks_a_row_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(40, monkeypatch)
    ui.show_table("", ("", ""), [("one", LONG)])
    output = screen.getvalue()
    assert output.count("x") == 300
    assert max(map(len, output.splitlines())) <= 40


@pytest.mark.parametrize(
    ("encoding", "name", "printed"),
    [
        ("ascii", "café", rb"caf\xe9"),
        ("utf-8", "café", "café".encode()),
        ("utf-8", os.fsdecode(b"caf\xe9"), b"caf\xe9"),
    ],
)
def test_a_name_is_printed_whatever_the_locale(
    encoding: str, name: str, printed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour of work, the path is no place to fail."""
    buffer = io.BytesIO()
    out = io.TextIOWrapper(buffer, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(app, "app", lambda **options: print(name))
    app.main()
    assert buffer.getvalue().strip() == printed


def test_what_the_system_rejects_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**options: object) -> None:
        raise PermissionError(13, "Permission denied", str(Path("kept")))

    monkeypatch.setattr(app, "app", refused)
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'kept'\n"


def test_what_training_renders_is_counted_in_clips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "SECONDS_BETWEEN_LINES", 0)
    with train._clip_progress()("rendering clips", 8) as advance:
        advance(4)
    assert capsys.readouterr().err.startswith("rendering clips: 4/8 clips, ")


def test_the_clock_of_a_measurement_starts_when_the_work_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(ui.time, "monotonic", lambda: now[0])
    with ui.progress("measuring", 80, waiting=True) as advance:
        now[0] = 100.0  # of loading and warming up
        advance(0)
        now[0] = 110.0
        advance(40)
    assert capsys.readouterr().err == "measuring: 40/80 frames, 4.0 frames/s, 10 s left\n"


def test_progress_counts_no_warm_up_and_shows_no_time_before_it_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(ui.time, "monotonic", lambda: now[0])
    with ui.progress("v.mp4", 32, warmup=16) as advance:
        for seconds, units, label in ((6.0, 1, "warm-up"), (12.0, 15, "warm-up"), (18.0, 8, "")):
            now[0] = seconds
            advance(units, label)
    assert capsys.readouterr().err.splitlines() == [
        "v.mp4: 0/32 frames, 0.2 frames/s warm-up",
        "v.mp4: 0/32 frames, 1.3 frames/s, 24 s left warm-up",
        "v.mp4: 8/32 frames, 1.3 frames/s, 18 s left",
    ]


def test_a_bar_counts_no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in (("COLUMNS", "100"), ("NO_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with ui.progress("v.mp4", 32, warmup=16) as advance:
        advance(24)
    assert "8/32" in screen.getvalue()
    assert "/48" not in screen.getvalue()


def test_a_whole_video_is_measured_from_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[int] = []
    monkeypatch.setattr(throughput.write, "write_video", lambda *args: progress.append(-1))
    throughput.end_to_end(None, None, progress.append)
    assert progress == [0, -1]
