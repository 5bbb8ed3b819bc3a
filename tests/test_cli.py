"""The command line: results on stdout, progress on stderr, one clear line per error."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from support.command import CommandResult, pavdm, pavdm_process
from support.decoding import decoded_frames
from support.tiers import integration

from pavdm_cli.commands import doctor
from pavdm_cli.runtime import optional_imports
from pavdm_cli.runtime.install_hints import install_command

PROMPT = "a red balloon drifting over green hills at sunset"
EXTENSION = ("--steps", "6", "--threads", "1")  # one step between shifts: fast, not good
QUICK = (*EXTENSION, "--warmup", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CommandResult]:
    """One short video, made once for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("made")
    done = pavdm_process("generate", PROMPT, "--frames", "13", "--seed", "5", *QUICK, folder=folder)
    assert done.code == 0, done.err
    return folder / done.out.strip(), done


def test_the_path_alone_is_on_stdout_and_the_seed_on_stderr(made):
    path, done = made
    assert done.out.strip() == "a-red-balloon-drifting-over-green-hills-at-5.mp4"
    assert path.exists()
    assert "seed 5" in done.err


def test_a_video_has_exactly_the_frames_asked_for_at_its_size_and_rate(made):
    with av.open(str(made[0])) as file:
        stream = file.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (384, 256, 16)
        assert sum(1 for _ in file.decode(stream)) == 13


def test_no_partial_file_is_left(made):
    assert [p.name for p in made[0].parent.iterdir()] == [made[0].name]


@pytest.mark.integration
def test_info_gives_the_command_that_makes_the_same_frames(made, tmp_path):
    line = pavdm("info", made[0], folder=tmp_path).out.strip().splitlines()[-1]
    assert line.startswith("pavdm generate")
    again = pavdm(*shlex.split(line)[1:], "-o", "again.mp4", folder=tmp_path)
    assert again.code == 0, again.err
    assert np.array_equal(decoded_frames(tmp_path / "again.mp4"), decoded_frames(made[0]))


def test_info_as_json_holds_prompt_seed_weights_and_versions(made, tmp_path):
    metadata = json.loads(pavdm("info", made[0], "--json", folder=tmp_path).out)
    assert metadata["prompt"] == PROMPT
    assert metadata["seed"] == 5
    assert len(metadata["weights"]) == 16
    assert metadata["versions"]["torch"]


def test_how_the_work_was_done_is_in_the_file_and_in_the_command(made, tmp_path):
    metadata = json.loads(pavdm("info", made[0], "--json", folder=tmp_path).out)
    assert metadata["attention"] == "sdpa"
    assert "cpu, float32, heads of 32" in metadata["attention_reason"]
    assert metadata["context_cache"] == "reuse"
    assert "--attention sdpa --context-cache reuse " in pavdm("info", made[0], folder=tmp_path).out.splitlines()[-1]


def test_a_taken_name_is_numbered(made):
    done = pavdm("generate", PROMPT, "--frames", "1", "--seed", "5", *QUICK, folder=made[0].parent)
    assert done.out.strip().endswith("-5-2.mp4")
    assert "\n1 frame in " in done.err
    Path(made[0].parent / done.out.strip()).unlink()


def test_an_existing_output_is_refused_before_any_work_and_kept(made, tmp_path):
    taken = tmp_path / "taken.mp4"
    taken.write_text("mine")
    done = pavdm("generate", PROMPT, "-o", taken, folder=tmp_path)
    assert done.code == 4
    assert done.out == ""
    assert [line[:5] for line in done.err.splitlines()] == ["error", "hint:"]  # no seed, no progress
    assert "exists" in done.err
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("suffix", ["mkv", *integration("webm", "gif")])
def test_other_containers_hold_the_same_number_of_frames(suffix, tmp_path):
    done = pavdm("generate", PROMPT, "--frames", "6", "-o", f"v.{suffix}", *QUICK, folder=tmp_path)
    assert done.code == 0, done.err
    assert len(decoded_frames(tmp_path / f"v.{suffix}")) == 6


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("generate", ""), 2, "prompt is empty"),
        (("generate", "zxcv qwer"), 2, "knows none of the words"),
        (("generate", "a", "red", "ball"), 2, 'quote the prompt: "a red ball"'),
        (("generate", PROMPT, "--fps", "24"), 2, "8 or 16 fps"),
        (("generate", PROMPT, "--size", "640x480"), 2, "96x64"),
        (("generate", PROMPT, "--size", "big"), 2, "WIDTHxHEIGHT"),
        (("generate", PROMPT, "--steps", "7"), 2, "7"),
        (("generate", PROMPT, "--steps", "0"), 2, "0"),
        (("generate", PROMPT, "--window", "13"), 2, "13"),
        (("generate", PROMPT, "--method", "magic"), 2, "pa, rn, rw, fifo"),
        (("generate", PROMPT, "--seconds", "-1"), 2, "not a length"),
        (("generate", PROMPT, "--seconds", "nan"), 2, ""),
        (("generate", PROMPT, "--seconds", "5", "--frames", "5"), 2, "use only one"),
        (("generate", PROMPT, "--guidance", "-3"), 2, "guidance"),
        (("generate", PROMPT, "--crf", "99"), 2, "crf"),
        (("generate", PROMPT, "--seed", "-1"), 2, "seed"),
        (("generate", PROMPT, "--threads", "9999"), 2, "1024"),
        (("generate", PROMPT, "--model", "huge"), 5, "pocket"),
        (("generate", PROMPT, "--device", "tpu"), 2, "auto, cpu"),
        (("generate", PROMPT, "--attention", "magic"), 2, "auto, fa3"),
        (("generate", PROMPT, "--context-cache", "reuse", "--method", "rw"), 2, "--method rw"),
        (
            ("generate", PROMPT, "--attention", "flash-attn", "--device", "cpu"),
            6,
            'pip install --no-build-isolation "flash-attn>=',
        ),
        (("bench", "throughput", "--attention", "xformers", "--device", "cpu"), 6, 'pip install "xformers>='),
        (
            ("generate", PROMPT, "--offload", "model", "--cuda-graphs", "on"),
            2,
            "cannot be combined with --offload",
        ),
        (("generate", PROMPT, "--context", "65"), 2, "less than or equal to 64"),
        (("generate", PROMPT, "--vae-tiling", "perhaps"), 2, "'perhaps' is not one of"),
        (("bench", "throughput", "--end-to-end"), 2, "--end-to-end needs random weights"),
        (("bench", "throughput", "--samples", "15"), 2, "--samples needs random weights"),
        (("bench", "throughput", "--ablate", "--profile", "trace"), 2, "cannot be combined"),
        (("bench", "kernels", "--compile-only", "--width", "7"), 2, "unknown width 7"),
        (("bench", "kernels", "--compile-only", "--output", "nowhere/rows.jsonl"), 4, "nowhere"),
        (("bench", "latency", "--random-weights", "--model", "huge"), 5, "no model is called 'huge'"),
        (("generate", PROMPT, "-o", "video.txt"), 2, ".mp4"),
        (("generate", PROMPT, "--encoder", "h264_nvenc"), 2, "ffmpeg"),
        (("generate", PROMPT, "-o", "nowhere/video.mp4"), 4, "nowhere"),
        (("extend", "missing.mp4"), 3, "missing.mp4"),
        (("extend", "."), 3, ""),
        (("extend", "http://localhost/x.mp4"), 3, ""),
        (("info", "missing.mp4"), 3, "missing.mp4"),
        (("models", "show", "huge"), 5, "pocket"),
    ],
)
def test_a_mistake_is_one_clear_line_and_its_own_code(words, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAVDM_FFMPEG", "no-ffmpeg" if "--encoder" in words else "")
    done = pavdm(*words)
    assert done.code == code, done.err
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_word_the_model_does_not_know_is_named_in_one_line(tmp_path):
    done = pavdm("generate", "a red dragon over the sea with lasers", "--frames", "1", *QUICK, folder=tmp_path)
    notes = [line for line in done.err.splitlines() if "does not know" in line]
    assert len(notes) == 1
    assert "dragon, lasers" in notes[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), *integration((signal.SIGTERM, 75))])
@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX")
def test_an_interrupt_keeps_a_playable_part(number, code, tmp_path):
    words = ("generate", PROMPT, "--seconds", "3000", "-o", "long.mp4", "--seed", "1", *QUICK)
    run = subprocess.Popen(
        [sys.executable, "-m", "pavdm_cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    growing = tmp_path / "long.partial.mp4"
    until = time.monotonic() + 300
    while time.monotonic() < until and not (growing.exists() and growing.stat().st_size > 2000):
        time.sleep(0.1)
    os.kill(run.pid, number)
    out, err = run.communicate(timeout=300)
    assert run.returncode == code
    assert out == ""
    assert "long.partial.mp4" in err
    assert not (tmp_path / "long.mp4").exists()
    assert len(decoded_frames(growing)) >= 4


@pytest.mark.integration
def test_extend_goes_on_from_a_video_made_here_with_its_prompt(made, tmp_path):
    done = pavdm("extend", made[0], "--frames", "5", "-o", "longer.mp4", *EXTENSION, folder=tmp_path)
    assert done.code == 0, done.err
    longer, before = decoded_frames(tmp_path / "longer.mp4"), decoded_frames(made[0])
    assert len(longer) == len(before) + 5
    assert np.abs(longer[: len(before)].astype(int) - before).mean() < 4
    assert json.loads(pavdm("info", "longer.mp4", "--json", folder=tmp_path).out)["prompt"] == PROMPT


@pytest.mark.integration
def test_only_new_is_the_continuation_alone(made, tmp_path):
    words = ("--only-new", "--frames", "5", "--start", "noised", "-o", "new.mkv", *EXTENSION)
    done = pavdm("extend", made[0], *words, folder=tmp_path)
    assert done.code == 0, done.err
    assert len(decoded_frames(tmp_path / "new.mkv")) == 5


@pytest.mark.parametrize("method", ["rn", *integration("rw", "fifo")])
def test_every_method_makes_a_video(method, tmp_path):
    words = ("--frames", "3", "--steps", "4", "--threads", "1", "--warmup", "0", "--method", method, "-o", "v.mp4")
    done = pavdm("generate", PROMPT, *words, folder=tmp_path)
    assert done.code == 0, done.err
    assert len(decoded_frames(tmp_path / "v.mp4")) == 3
    assert "comparison" in done.err


def test_the_doctor_lists_every_attention_back_end_with_a_reason(tmp_path):
    lines = pavdm("doctor", folder=tmp_path).out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if len(line.split()) > 2}
    for name in ("fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa"):
        assert rows[name][0] in ("yes", "no")
        assert len(rows[name]) > 3


def test_the_doctor_says_whether_open_sora_can_be_run(monkeypatch):
    rows = dict(doctor._opensora())
    assert rows["transformers"][0].isdigit()
    assert rows["opensora-v1.2"] == "ready to download and run"
    monkeypatch.setattr(optional_imports, "PACKAGES", ("diffusers", "no-such-package"))
    without = dict(doctor._opensora())
    assert without["no-such-package"] == "not installed"
    assert without["opensora-v1.2"] == f"no: {install_command('opensora')}"


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        *integration(*((line,) for line in (("doctor",), ("models", "list"), ("models", "show", "pocket")))),
    ],
)
def test_commands_that_tell_do_so_on_stdout(words, tmp_path):
    done = pavdm_process(*words, folder=tmp_path)
    assert done.code == 0, done.err
    assert done.out.strip()
    assert done.err == ""


@pytest.mark.integration
def test_graphs_that_need_a_gpu_are_one_line_where_there_is_none(tmp_path):
    done = pavdm("generate", PROMPT, "--device", "cpu", "--cuda-graphs", "on", folder=tmp_path)
    assert done.code == 6
    assert "error: --cuda-graphs on needs CUDA, and the device is cpu" in done.err
    assert "hint: use --cuda-graphs auto" in done.err
    assert not any(tmp_path.iterdir())
