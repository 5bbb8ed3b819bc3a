"""Errors that need no torch are raised before it is imported, and before anything else is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.clips import grays, make

from pavdm_cli.attention import BACKENDS
from pavdm_cli.models.execution import ATTENTION

SAMPLING = {
    "a method": (["--method", "magic"], "--method must be one of pa, rn, rw, fifo"),
    "sizes that do not fit": (["--steps", "30", "--window", "60", "--chunk", "5"], "--chunk 4, 6, 10"),
    "a huge chunk": (["--chunk", "999999999999"], "at most 10000"),
    "no steps": (["--steps", "0"], "steps must be at least 1"),
    "guidance": (["--guidance", "-3"], "--guidance must be 0 to 100"),
    "a model": (["--model", "huge"], "no model is called 'huge'"),
    "a device": (["--device", "tpu"], "--device must be one of auto, cpu, cuda, mps"),
    "a back end": (["--attention", "magic"], "--attention must be one of auto, fa3"),
    "keys that cannot be reused": (["--method", "rw", "--context-cache", "reuse"], "--method rw"),
}
VIDEO = {
    **SAMPLING,
    "a seed": (["--seed", "-1"], "--seed must be 0"),
    "a suffix": (["-o", "video.txt"], "cannot write 'video.txt' as a video"),
    "a folder that is missing": (["-o", "nowhere/video.mp4"], "the folder nowhere does not exist"),
    "a size": (["--size", "640x480"], "use --size 192x128"),
    "an edit ratio": (["--edit-ratio", "0.5"], "--edit-ratio only applies to --method rn"),
    "quality": (["--crf", "99"], "--crf must be 0 to 51"),
    "a length": (["--frames", "0"], "frames"),
    "unknown words": ([], "pocket knows none of the words"),
}
GENERATE = {**VIDEO, "an empty prompt": ([], "the prompt is empty"), "a rate": (["--fps", "24"], "8 or 16 fps")}
MISTAKES = {
    **{f"generate, {name}": (["generate", *words], message) for name, (words, message) in GENERATE.items()},
    **{f"extend, {name}": (["extend", "v.mp4", *words], message) for name, (words, message) in VIDEO.items()},
    **{f"bench throughput, {name}": (["bench", "throughput", *w], message) for name, (w, message) in SAMPLING.items()},
    **{
        f"bench latency, {name}": (["bench", "latency", *words], message) for name, (words, message) in SAMPLING.items()
    },
    "bench, unknown words": (["bench", "latency", "--prompt", "zxcv"], "pocket knows none of the words"),
}
RUN = """
    import contextlib, io, json, sys, time
    from pavdm_cli.app import main
    for line in json.loads(sys.argv[1]):
        out, err, code = io.StringIO(), io.StringIO(), 0
        sys.argv = ["pavdm", *line]
        begun = time.process_time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code
        took = time.process_time() - begun
        print(json.dumps([code, out.getvalue(), err.getvalue(), "torch" in sys.modules, took]))
"""


def line(name: str, words: list[str]) -> list[str]:
    """The command line of a mistake, with a prompt unless that is what is wrong."""
    prompt = "" if "empty" in name else "zxcv qwer" if "unknown" in name else "a red ball"
    if words[0] == "generate":
        return [*words, prompt]
    return [*words, "-p", prompt] if words[0] == "extend" else words


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, bool, float]]:
    """Every mistake made in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    make(folder / "v.mp4", grays(9))
    lines = [line(name, words) for name, (words, _) in MISTAKES.items()]
    outcomes = dict(zip(MISTAKES, run_lines(lines, folder), strict=True))
    assert [path.name for path in Path(folder).iterdir()] == ["v.mp4"]
    return outcomes


def run_lines(lines: list[list[str]], folder: Path) -> list[tuple[int, str, str, bool, float]]:
    """Exit code, output, errors, whether torch was imported, and seconds of each command, run by one new process."""
    command = [sys.executable, "-c", textwrap.dedent(RUN), json.dumps(lines)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return list(map(json.loads, result.stdout.splitlines()))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_before_torch_is_imported(name, answers):
    code, out, err, torch_imported, seconds = answers[name]
    assert MISTAKES[name][1] in err
    assert (code, out) == ({"a model": 5, "a folder that is missing": 4}.get(name.partition(", ")[2], 2), "")
    assert [text.partition(":")[0] for text in err.splitlines()] in (["error"], ["error", "hint"])  # and no seed
    assert not torch_imported
    assert seconds < 1


def test_models_are_listed_and_managed_without_torch(tmp_path: Path) -> None:
    codes = {"list": 0, "show wan2.1-t2v-14b": 0, "path opensora-v1.2": 0, "pull pocket": 2, "verify opensora-v1.2": 5}
    outcomes = run_lines([["models", *line.split()] for line in [*codes, "remove --cache -y"]], tmp_path)
    assert [code for code, *_ in outcomes] == [*codes.values(), 0]
    assert not any(torch_imported for *_, torch_imported, _ in outcomes)


def test_the_names_of_attention_back_ends_are_those_of_the_table():
    assert ("auto", *BACKENDS) == ATTENTION
