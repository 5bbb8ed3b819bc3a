"""Endless videos: complete when the user stops them, continued when a scheduler did."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support import clips
from support.command import CommandResult, pavdm
from support.decoding import decoded_frames
from support.interrupted import snapshots
from support.tiers import integration

import pavdm_cli
from pavdm_cli import ui
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import checkpoint
from pavdm_cli.generation.timeline import parse_seconds
from pavdm_cli.runtime import signals
from pavdm_cli.video import read_metadata

QUICK = ("--seed", 3, "--threads", 1, "--device", "cpu", "--steps", 6)
SEA = ("generate", "a red ball bouncing over the sea by day", *QUICK, "--warmup", 0, "--scale", 1)
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of this kind are POSIX")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def stopping(number: int, chunks: int) -> Iterator[None]:
    """The signal comes once so many chunks are saved."""
    saved, write, ignored = itertools.count(1), checkpoint.write_checkpoint, signal.getsignal(number)

    def write_and_stop(*arguments: object) -> None:
        write(*arguments)
        if next(saved) == chunks:
            os.kill(os.getpid(), number)

    signal.signal(number, signal.SIG_DFL if ignored == signal.SIG_IGN else ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pavdm_cli.generation.checkpoint_writer.write_checkpoint", write_and_stop)
        yield


def stopped(*words: object, chunks: int = 3, number: int = signal.SIGINT) -> CommandResult:
    with stopping(number, chunks):
        return pavdm(*words)


@ON_POSIX
def test_a_stopped_video_is_complete_and_its_command_makes_it_again() -> None:
    result = stopped(*SEA, "--seconds", "forever", "-o", "v.mp4")
    assert (result.code, result.out) == (0, "v.mp4\n"), result.err
    video = decoded_frames("v.mp4")
    assert f"stopped after {len(video) / 8:.1f} s of video\n" in result.err
    assert sorted(path.name for path in Path().iterdir()) == ["v.mp4"]
    stored = read_metadata(Path("v.mp4"))
    assert (stored["forever"], stored["frames"]) == (True, len(video))
    command = shlex.split(pavdm("info", "v.mp4").out.splitlines()[-1])[1:]
    assert command[2:6] == ["--seconds", "forever", "--frames", str(len(video))]
    assert pavdm(*command, "-o", "again.mp4").code == 0
    assert np.array_equal(decoded_frames("again.mp4"), video)


@ON_POSIX
def test_a_video_stopped_before_a_planned_prompt_is_made_again_too() -> None:
    result = stopped(*SEA, "--seconds", "forever", "--at", "60s", "at night", "-o", "v.mp4")
    assert result.code == 0, result.err
    command = shlex.split(pavdm("info", "v.mp4").out.splitlines()[-1])[1:]
    assert "60s" in command
    again = pavdm(*command, "-o", "again.mp4")
    assert again.code == 0, again.err
    assert np.array_equal(decoded_frames("again.mp4"), decoded_frames("v.mp4"))


@pytest.mark.integration
def test_a_video_cut_after_some_frames_does_not_ramp_down() -> None:
    """It begins as every longer one; one with an end differs in its last window."""
    for words, name in ((("--seconds", "forever", "--frames", 18), "cut"), (("--frames", 40), "long")):
        assert pavdm(*SEA, *words, "--crf", 0, "-o", f"{name}.mkv").code == 0
    model = pavdm_cli.load_model("pocket", steps=6, warmup=0, seed=3, threads=1, device="cpu")
    endless = model.generate(SEA[1], seconds="forever").frames()
    first = np.stack(list(itertools.islice(endless, 18)))
    ended = [np.stack(list(model.generate(SEA[1], frames=count).frames())) for count in (18, 40)]
    assert np.array_equal(first, ended[1][:18])
    assert not np.array_equal(first, ended[0])
    assert np.array_equal(decoded_frames("cut.mkv"), decoded_frames("long.mkv")[:18])


@pytest.mark.integration
def test_it_resumes_to_the_same_bytes_and_stays_endless() -> None:
    cuts = snapshots(*SEA, "--seconds", "forever", "--frames", 26, name="v.mp4")
    result = pavdm("resume", cuts[2] / "v.mp4")
    assert result.code == 0, result.err
    assert (cuts[2] / "v.mp4").read_bytes() == Path("v.mp4").read_bytes()


@ON_POSIX
def test_a_scheduler_s_stop_is_an_interruption_that_resumes_without_an_end() -> None:
    result = stopped(*SEA, "--seconds", "forever", "-o", "v.mkv", number=signal.SIGTERM)
    assert (result.code, result.out) == (75, "")
    assert "`pavdm resume v.mkv` continues it" in result.err
    assert " so far, interrupted; `pavdm resume" in pavdm("info", "v.partial.mkv").out
    result = stopped("resume", "v.mkv")
    assert (result.code, result.out) == (0, "v.mkv\n"), result.err
    assert re.search(r"resuming after frame \d+\n", result.err)
    video = decoded_frames("v.mkv")
    assert pavdm(*SEA, "--seconds", "forever", "--frames", len(video), "-o", "whole.mkv").code == 0
    assert np.array_equal(decoded_frames("whole.mkv"), video)
    assert read_metadata(Path("whole.mkv")) == read_metadata(Path("v.mkv"))


@ON_POSIX
@pytest.mark.integration
def test_a_continuation_without_an_end() -> None:
    clips.make(Path("in.mp4"), clips.grays(30, 64, 96), clips.ClipSpec(audio="aac"))
    result = stopped("extend", "in.mp4", "-p", SEA[1], *QUICK, "--seconds", "forever", "-o", "out.mp4")
    assert result.code == 0, result.err
    video, stored = decoded_frames("out.mp4"), read_metadata(Path("out.mp4"))
    assert len(video) == 30 + stored["frames"]
    command = shlex.split(pavdm("info", "out.mp4").out.splitlines()[-1])[1:]
    assert pavdm(*command, "-o", "again.mp4").code == 0
    assert np.array_equal(decoded_frames("again.mp4"), video)


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "several": (("-n", 2), "-n 2: the second video would never begin"),
    "gif": (("-o", "v.gif"), "GIF"),
    "encoder": (("--encoder", "libx264"), "--encoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_need_an_end_are_rejected(name: str) -> None:
    words, reason = REFUSED[name]
    result = pavdm(*SEA, "--seconds", "forever", *words)
    assert (result.code, result.out) == (2, "")
    assert f"--seconds forever cannot be combined with {reason}" in result.err


@pytest.mark.parametrize("text", ["inf", "nan", "ever", "-inf", ""])
def test_a_length_is_a_number_or_forever(text: str) -> None:
    with pytest.raises(UsageError, match="a time or forever"):
        parse_seconds(text)
    result = pavdm(*SEA, f"--seconds={text}")
    assert (result.code, "must be a time or forever" in result.err) == (2, True)


@pytest.mark.parametrize("text", ["1s", *integration("1", "0:01", "1.0", "0m1s")])
def test_a_length_is_written_like_every_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("length.toml").write_text(f'seconds = "{text}"')
    Path("length.yaml").write_text(f"seconds: {text}")
    Path("jobs.jsonl").write_text(f'{{"prompt": "a red ball", "seconds": "{text}"}}')
    Path("jobs.csv").write_text(f"prompt,seconds\na red ball,{text}")
    lines = [("--seconds", text), ("-s", text), ("--config", "length.toml"), ("--config", "length.yaml"), ()]
    for words in lines:
        if not words:
            monkeypatch.setenv("PAVDM_SECONDS", text)
        plan = json.loads(pavdm("generate", "a red ball", *QUICK, *words, "--plan", "--json").out)
        assert float(plan["settings"]["seconds"]["value"]) == 1, words
    for jobs in ("jobs.jsonl", "jobs.csv"):
        batch = json.loads(pavdm("batch", jobs, "-d", "v", "--plan", "--json").out)
        assert [job["frames"] for job in batch["jobs"]] == [pocket_rate()]
    assert pavdm_cli.generate("a red ball", seconds=text).request.frame_count == pocket_rate()


def pocket_rate() -> int:
    return pavdm_cli.generate("a red ball", frames=1).request.spec.fps


def test_an_endless_video_may_stop_at_a_frame_in_every_source() -> None:
    Path("jobs.jsonl").write_text('{"prompt": "a red ball", "seconds": "forever", "frames": 6}')
    batch = json.loads(pavdm("batch", "jobs.jsonl", "-d", "v", "--plan", "--json").out)
    assert [job["frames"] for job in batch["jobs"]] == [6]
    result = pavdm("generate", "a red ball", "--seconds", "1", "--frames", "2")
    assert "with --seconds forever, --frames sets where to stop" in result.err
    Path("long.toml").write_text('seconds = "forever"')
    plan = json.loads(pavdm("generate", "a red ball", "--config", "long.toml", "--frames", "6", "--plan", "--json").out)
    assert "seconds" not in plan["settings"]


def test_a_configuration_file_has_it_too() -> None:
    Path("long.toml").write_text(f'prompt = "{SEA[1]}"\nseconds = "forever"\nframes = 6\n')
    assert pavdm("generate", "--config", "long.toml", *QUICK, "-o", "v.mp4").code == 0
    assert read_metadata(Path("v.mp4"))["forever"] is True
    printed = pavdm("info", "--config", "v.mp4").out
    assert '\nseconds = "forever"\nframes = 6\n' in printed
    Path("long.toml").write_text('seconds = "never"')
    result = pavdm("generate", "x", "--config", "long.toml")
    assert (result.code, "seconds is 'never', not a number or a time or forever" in result.err) == (2, True)


def test_python_reads_its_frames_and_cannot_save_it() -> None:
    video = pavdm_cli.generate(SEA[1], seconds="forever", steps=6, device="cpu", threads=1)
    with pytest.raises(UsageError, match="an endless video cannot be saved"):
        video.save("v.mp4")


def test_a_prompt_can_change_at_any_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert pavdm_cli.generate(SEA[1], seconds="forever", at={"10:00:00": "at night"}).request.timeline


def test_progress_without_an_end_shows_the_time_of_the_video(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "SECONDS_BETWEEN_LINES", 0.0)
    with ui.endless_progress("v.mp4", 8, done_before=80) as advance:
        advance(0, label="warm-up")
        advance(500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("v.mp4: 0:00:10 of video, 0.0 frames/s warm-up")
    assert lines[1].startswith("v.mp4: 0:01:12 of video, ")
    assert "left" not in lines[1]


@ON_POSIX
@pytest.mark.parametrize(("number", "by_user"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_who_stopped_is_known(number: int, by_user: bool) -> None:
    before: Callable[..., object] | signal.Handlers = signal.signal(number, signal.SIG_DFL)
    try:
        with signals.stop_requested() as stop:
            assert not stop.by_user()
            os.kill(os.getpid(), number)
            assert stop.by_user() == by_user
    finally:
        signal.signal(number, before)


def test_a_plan_without_an_end_is_for_a_minute_and_says_so() -> None:
    clips.make(Path("in.mp4"), clips.grays(30, 64, 96))
    for words in (SEA, ("extend", "in.mp4", "-p", SEA[1], *QUICK)):
        assert "\ntime (estimate, per minute of video)\n" in pavdm(*words, "--seconds", "forever", "--plan").out
        time = json.loads(pavdm(*words, "--seconds", "forever", "--plan", "--json").out)["time"]
        assert (time["video_seconds"], time["endless"]) == (60, True)
        time = json.loads(pavdm(*words, "--seconds", "2", "--plan", "--json").out)["time"]
        assert (time["video_seconds"], time["endless"]) == (2, False)
