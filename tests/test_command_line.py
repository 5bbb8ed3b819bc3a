"""What all commands share: help, verbosity, errors as JSON, and shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from support.command import pavdm
from support.options import ROOT as COMMAND
from test_architecture import ROOT

from pavdm_cli import __version__
from pavdm_cli.commands import options
from pavdm_cli.video.write.external import find_ffmpeg

QUICK = ("--frames", "2", "--steps", "6", "--warmup", "0", "--threads", "1", "--seed", "1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", [(), ("generate",), ("models",), ("models", "list"), ("bench", "latency")])
def test_every_command_has_a_short_help_option(words):
    code, out, err = pavdm(*words, "-h")
    assert (code, err) == (0, "")
    assert "Usage: pavdm" in out
    assert pavdm(*words, "--help") == (code, out, err)


def descriptions(command) -> list[str]:
    return [
        command.help or "",
        *(text for below in getattr(command, "commands", {}).values() for text in descriptions(below)),
    ]


def test_a_paragraph_of_the_help_is_one_line_that_wraps_at_any_width() -> None:
    assert not [text for text in descriptions(COMMAND) if "\n" in text.replace("\n\n", "")]


EVERYDAY = {"--seconds", "--frames", "--at", "--seed", "--output", "--force", "--model", "--size", "--device", "--plan"}
RESEARCH = {"--method", "--steps", "--ramp-up", "--solver", "--attention", "--cuda-graphs", "--cfg-batching"}


@pytest.mark.parametrize("verb", ["generate", "extend", "batch"])
def test_help_shows_everyday_options_before_those_for_experiments(verb: str) -> None:
    panels: dict[str, set[str]] = {}
    for parameter in COMMAND.commands[verb].params:
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", set()).update(parameter.opts)
    names = [name for name in panels if name]
    early, late = (set().union(*(panels[name] for name in part)) for part in (["", *names[:3]], names[3:]))
    assert set(names[:3]) == {options.VIDEO_PANEL, options.FILE_PANEL, options.RUN_PANEL}
    assert early >= EVERYDAY - ({"--output"} if verb == "batch" else set())
    assert late >= RESEARCH


PATHS = {
    "generate x -o": "--output",
    "generate x --image": "--image",
    "extend": "INPUT",
    "extend v.mp4 --output": "--output",
    "info": "FILE",
    "models pull opensora-v1.2 --folder": "--folder",
    "train vae --output-dir": "--output-dir",
    "bench throughput --output": "--output",
    "bench compare": "FIRST",
}


@pytest.mark.parametrize("line", PATHS)
def test_an_empty_path_is_refused(line):
    code, out, err = pavdm(*line.split(), "")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"error: {PATHS[line]} must not be an empty path"


@pytest.mark.parametrize("words", [(), ("generate",), ("models", "pull"), ("train", "denoiser")])
def test_a_switch_shows_no_type(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = pavdm(*words, "--help").out
    assert "--help" in out
    assert "<bool>" not in out


@pytest.mark.parametrize(("model", "option"), [("pocket", "--device"), ("opensora-v1.2", "--text-device")])
def test_a_missing_gpu_is_reported_before_anything_else(model, option, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = pavdm("generate", "a red ball", "--model", model, option, "cuda")
    assert (code, out) == (6, "")
    assert err.splitlines() == [
        "error: there is no cuda device here",
        f"hint: use {option} cpu, or see `pavdm doctor`",
    ]


@pytest.mark.skipif(not find_ffmpeg(), reason="no ffmpeg outside PyAV")
def test_an_encoder_that_does_not_work_is_reported_before_anything_else(tmp_path):
    code, out, err = pavdm("generate", "a red ball", "--encoder", "no_such_encoder")
    assert (code, out) == (2, "")
    error, hint = err.splitlines()
    assert error.startswith("error: ffmpeg cannot encode with no_such_encoder: ")
    assert "Unknown encoder" in error
    assert hint.startswith("hint: `ffmpeg -encoders` lists")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not find_ffmpeg(), reason="no ffmpeg outside PyAV")
def test_an_encoder_that_works_is_used():
    assert pavdm("generate", "a red ball", *QUICK, "--encoder", "libx264", "-o", "v.mkv").code == 0


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--precision", "int8", "'int8' is not one of 'auto', 'fp32', 'bf16'"),
        ("--threads", "x", "valid integer"),
        ("--threads", "-1", "0"),
        ("--guidance", "x", "valid"),
    ],
)
def test_a_refused_value_is_named_in_plain_words(option, value, says):
    error = pavdm("generate", "a red ball", f"{option}={value}").err.splitlines()[0]
    assert error.startswith(f"error: Invalid value for '{option}'")
    assert says in error
    assert not any(words in error for words in ("Value error", "Input should", "unable to parse"))
    assert not error.endswith(".")


def test_the_version_has_a_short_option():
    assert pavdm("-V") == (0, f"pavdm {__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("models",), ("bench",)])
def test_a_command_that_is_missing_is_answered_with_help(words):
    code, out, err = pavdm(*words)
    assert (code, err) == (2, "")
    assert out.count("Usage: pavdm") == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_prints_the_path_and_nothing_else(place):
    words = ["generate", "a red dragon ball", *QUICK]  # a dragon is worth a note
    code, out, err = pavdm(*(["-q", *words] if place == "before" else [*words, "--quiet"]))
    assert (code, err) == (0, "")
    assert out.endswith("-1.mp4\n")


def test_quiet_prints_errors_and_lasts_for_one_command():
    assert pavdm("-q", "generate", "zxcv").err.startswith("error: pocket knows none of the words")
    assert "seed 1" in pavdm("generate", "a red ball", *QUICK).err


def test_verbose_prints_details_and_a_traceback_before_the_error():
    assert "attention" in pavdm("generate", "a red ball", *QUICK, "-v").err
    lines = pavdm("generate", "zxcv", "-v").err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.partition(":")[0] for line in lines[-2:]] == ["error", "hint"]
    assert "Traceback" not in pavdm("generate", "zxcv").err


ERRORS = {
    "ours": (("generate", "zxcv"), 2, "UsageError"),
    "an option that does not exist": (("generate", "a red ball", "--nothing"), 2, "UsageError"),
    "a value that Typer refuses": (("generate", "a red ball", "--precision", "int8"), 2, "UsageError"),
    "an argument that is missing": (("extend",), 2, "UsageError"),
    "an input": (("extend", "missing.mp4"), 3, "InputError"),
    "an output": (("generate", "a red ball", "-o", "nowhere/x.mp4"), 4, "OutputError"),
    "a model": (("models", "show", "huge"), 5, "ModelError"),
    "a device": (
        ("generate", "a red ball", "--attention", "flash-attn", "--device", "cpu", "--seed", "1"),
        6,
        "DeviceError",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_with_json_an_error_is_one_object_on_stdout(name):
    words, code, kind = ERRORS[name]
    plain = pavdm(*words)
    assert (plain.code, plain.out) == (code, "")
    done = pavdm(*words, "--json")
    assert (done.code, done.err) == (code, plain.err)
    error = json.loads(done.out)["error"]
    assert plain.err.splitlines()[-2:] == [f"error: {error['message']}", f"hint: {error['hint']}"]
    assert (error["kind"], error["exit_code"]) == (kind, code)


COMPLETIONS = {
    "generate --method r": {"rn", "rw"},
    "generate --model open": {"opensora-v1.2"},
    "extend --attention sdpa-": {"sdpa-flash", "sdpa-efficient", "sdpa-math"},
    "generate --device c": {"cpu", "cuda"},
    "bench throughput --precision b": {"bf16"},
    "models show po": {"pocket"},
    "generate --verb": {"--verbose"},
}


def variables(line: str) -> dict[str, str]:
    """What bash sets to complete a line."""
    words = f"pavdm {line}"
    return {"_PAVDM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}


@pytest.mark.parametrize("line", COMPLETIONS)
def test_the_shell_completes_names(line, monkeypatch):
    for name, value in variables(line).items():
        monkeypatch.setenv(name, value)
    assert set(pavdm().out.split()) == COMPLETIONS[line]


def test_a_process_completes_names():
    command = [sys.executable, "-m", "pavdm_cli"]
    environment = os.environ | variables("generate --method r")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"rn", "rw"}, done.stderr
