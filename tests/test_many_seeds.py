"""`generate -n`: several seeds in one run, and prompts from standard input."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from support.command import pavdm

from pavdm_cli.generation import pipeline, write

QUICK = ("--frames", "6", "--steps", "6", "--warmup", "0", "--scale", "1", "--threads", "1", "--seed", "7")
PROMPT = "a red ball over green hills at noon"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def frames(path: str) -> bytes:
    """The bytes of a video, which are the same for the same frames and metadata."""
    return Path(path).read_bytes()


def test_successive_seeds_are_made_with_the_model_loaded_once(monkeypatch):
    loads, plain = [], pipeline.open_runner
    monkeypatch.setattr(pipeline, "open_runner", lambda *given, **named: loads.append(1) or plain(*given, **named))
    code, out, err = pavdm("generate", PROMPT, *QUICK, "-n", "3", "-o", "ball.mp4")
    assert (code, out.split()) == (0, ["ball-7.mp4", "ball-8.mp4", "ball-9.mp4"])
    assert len(loads) == 1
    assert "seeds 7 to 9" in err
    assert pavdm("generate", PROMPT, *QUICK[:-1], "8", "-o", "single.mp4").code == 0
    assert frames("single.mp4") == frames("ball-8.mp4")
    assert frames("ball-7.mp4") != frames("ball-8.mp4")


def test_without_a_name_each_video_is_named_after_its_seed_and_json_is_one_object_a_line():
    code, out, _ = pavdm("generate", PROMPT, *QUICK, "-n", "2", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["path"] for row in rows] == [f"a-red-ball-over-green-hills-at-noon-{seed}.mp4" for seed in (7, 8)]
    assert [row["metadata"]["seed"] for row in rows] == [7, 8]


def test_no_video_is_begun_where_one_name_is_taken():
    Path("ball-8.mp4").write_text("mine")
    code, out, err = pavdm("generate", PROMPT, *QUICK, "-n", "3", "-o", "ball.mp4")
    assert (code, out) == (4, "")
    assert "ball-8.mp4 already exists" in err
    assert [path.name for path in Path().iterdir()] == ["ball-8.mp4"]


def test_the_last_seed_is_checked_before_the_first_video():
    assert pavdm("generate", PROMPT, "--seed", str(2**63 - 2), "-n", "3").code == 2
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("kept", [0, 4])
@pytest.mark.integration
def test_an_interrupt_keeps_what_is_done_and_names_the_missing_seeds(kept, as_json, monkeypatch):
    plain = write.write_video

    def interrupted(job, model, output, control, still=None):
        if job.seed < 8:
            return plain(job, model, output, control, still)
        return write.WriteResult(output.path, kept, False, {})

    monkeypatch.setattr(write, "write_video", interrupted)
    words = ("generate", PROMPT, *QUICK, "-n", "4", "-o", "ball.mp4", *["--json"] * as_json, "-q")
    code, out, err = pavdm(*words)
    assert code == 130
    missing = [9, 10] if kept else [8, 9, 10]
    assert f"not generated: seeds {missing[0]} to 10; --seed {missing[0]} -n {len(missing)} makes the rest" in err
    first, *rest = out.splitlines()
    assert (json.loads(first)["path"] if as_json else first) == "ball-7.mp4"
    errors = [json.loads(line)["error"] for line in rest]
    assert [error["missing_seeds"] for error in errors] == [missing] * as_json
    assert [(error["kind"], error["exit_code"]) for error in errors] == [("Interrupted", 130)] * as_json


def test_a_signal_between_two_videos_stops_after_the_first(monkeypatch):
    plain = write.write_video

    def whole(job, model, output, control, still=None):
        result = plain(job, model, output, control, still)
        control.should_stop.receive(2, None)
        return result

    monkeypatch.setattr(write, "write_video", whole)
    code, out, err = pavdm("generate", PROMPT, *QUICK, "-n", "2")
    assert (code, len(out.splitlines())) == (130, 1)
    assert "not generated: seed 8; --seed 8 -n 1 makes the rest" in err


@pytest.mark.parametrize("typed", [b"a red ball\nover green hills\n", b"  a red ball over green hills"])
def test_a_prompt_is_read_from_standard_input(typed, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    row = json.loads(pavdm("generate", "-", *QUICK, "--json").out)
    assert row["metadata"]["prompt"] == "a red ball over green hills"


@pytest.mark.parametrize(
    ("typed", "says"), [(b"", "empty"), (b"red \xff", "UTF-8"), (b"red " * 50_000, "20000 characters")]
)
def test_what_is_no_prompt_on_standard_input_is_refused(typed, says, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), "utf-8"))
    code, out, err = pavdm("generate", "-")
    assert (code, out) == (2, "")
    assert says in err
