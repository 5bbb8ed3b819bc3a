"""Signals at any moment, and closed, full or broken streams, never end a command with a traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.processes import QUICK, SIGNALS, default_signals, start, strike, wait_for_signals
from support.tiers import long

from pavdm_cli.runtime.streams import TolerantWriter, first_error
from pavdm_cli.video import open_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc and signals")


def check_end(code: int, err: str, folder: Path) -> None:
    """The process ended as one that was interrupted, or had just finished, and all that it says is true."""
    assert code in (130, 75, 0), err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    partial = folder / "v.partial.mp4"
    if kept := re.search(r"kept (\S+), (\d+) frame", err):
        assert open_video(folder / kept[1]).frames == int(kept[2]) > 0
    elif code:
        assert not partial.exists() or not partial.stat().st_size


INTERRUPTED = {"kind": "Interrupted", "message": "interrupted", "hint": ""}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_starting_process_is_one_line(number: int, tmp_path: Path) -> None:
    process = start(*QUICK, "--frames", 400, "-o", "v.mp4", "--json", cwd=tmp_path)
    wait_for_signals(process)
    strike(process, [(0, number), (0.001, number)])
    out, err = process.communicate(timeout=60)
    code = 130 if number in (signal.SIGINT, signal.SIGHUP) else 75
    error = {"error": INTERRUPTED | {"exit_code": code}}
    assert (process.returncode, err, json.loads(out)) == (code, "interrupted\n", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["runtime.signals", "app"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        class SignalOnImport:
            def find_spec(self, name, path, target=None):
                if name == "pavdm_cli.{module}":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, SignalOnImport())
        from pavdm_cli.__main__ import main
        main()
    """
    assert run_script(script, "models", "list", cwd=tmp_path) == (130, "", "interrupted\n")


@pytest.mark.parametrize(("words", "code"), [(("--version",), 0), (("info", "absent.mp4"), 3)])
def test_ctrl_c_while_the_interpreter_shuts_down_keeps_the_exit_code(
    words: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    script = """
        import os, signal
        from pavdm_cli.__main__ import main
        class SignalWhenFreed:
            kill, arguments = os.kill, (os.getpid(), signal.SIGINT)
            def __del__(self):
                SignalWhenFreed.kill(*self.arguments)
        freed_last = SignalWhenFreed()
        main()
    """
    assert run_script(script, *words, cwd=tmp_path)[0] == code


def run_script(script: str, *words: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code and streams of a script that has its own arguments."""
    command = [sys.executable, "-c", textwrap.dedent(script), *words]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, preexec_fn=default_signals
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.integration
def test_many_signals_among_the_first_chunks_keep_what_was_made(tmp_path: Path) -> None:
    process = start(*QUICK, "--frames", 4000, "-o", "v.mp4", cwd=tmp_path)
    partial = tmp_path / "v.partial.mp4"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 10_000):
        strike(process, [(0.01, 0)])
    strike(process, [(0.002, number) for number in SIGNALS * 4])
    _, err = process.communicate(timeout=60)
    check_end(process.returncode, err, tmp_path)
    assert "interrupted: kept v.partial.mp4" in err


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(24))
def test_signals_at_random_moments_end_without_a_traceback(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    moments = [draw.uniform(0, 3)] + [draw.choice([0, 0.001, 0.01, 0.1, 1]) for _ in range(draw.randrange(8))]
    process = start(*QUICK, "--frames", 400, "-o", "v.mp4", cwd=tmp_path)
    wait_for_signals(process)
    strike(process, [(moment, draw.choice(SIGNALS)) for moment in moments])
    _, err = process.communicate(timeout=120)
    check_end(process.returncode, err, tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("words", [["models", "list"], ["doctor"], ["--help"]])
@pytest.mark.parametrize("seed", range(4))
def test_signals_to_a_short_command_end_without_a_traceback(words: list[str], seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    process = start(*words, cwd=tmp_path)
    wait_for_signals(process)
    strike(process, [(draw.uniform(0, 0.5), draw.choice(SIGNALS)) for _ in range(5)])
    _, err = process.communicate(timeout=120)
    check_end(process.returncode, err, tmp_path)


SHORT = (*QUICK, "--frames", "4", "-o", "v.mp4")


def redirected(command: str, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with its streams as a shell redirects them."""
    script = f'"$0" -m pavdm_cli "$@" {command}; echo code $? >&3'
    shell = ["bash", "-c", f"exec 3>&1; {{ {script}; }}", sys.executable, *words]
    return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.integration
@pytest.mark.parametrize("stderr", ["2> >(true)", *long("2>&-", "2>/dev/full")])
def test_a_dead_stderr_stops_no_render(stderr: str, tmp_path: Path) -> None:
    done = redirected(stderr, tmp_path, *SHORT)
    assert done.stdout.split() == ["v.mp4", "code", "0"]
    assert open_video(tmp_path / "v.mp4").frames == 4


@pytest.mark.parametrize("stdout", [">/dev/full", *long(">&-", "> >(true)")])
@pytest.mark.integration
def test_a_dead_stdout_keeps_the_video_and_says_where(stdout: str, tmp_path: Path) -> None:
    done = redirected(stdout, tmp_path, *SHORT)
    assert done.stdout.split() == ["code", "4"]
    assert "error: cannot print the path to standard output: " in done.stderr
    assert done.stderr.endswith("hint: the video is complete: v.mp4\n")
    assert open_video(tmp_path / "v.mp4").frames == 4


def test_a_reader_that_has_gone_is_told_nothing(tmp_path: Path) -> None:
    done = redirected("> >(true)", tmp_path, "models", "show", "pocket")
    assert (done.stdout.split(), done.stderr) == (["code", "4"], "")


def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    done = redirected(">/dev/full", tmp_path, "models", "list")
    assert done.stdout.split() == ["code", "4"]
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


def test_a_pipe_that_nobody_reads_stops_nothing() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as raw:
        stream = TolerantWriter(raw, blocking=False)
        for _ in range(100):
            stream.write(b"x" * 4096)
        assert stream.error is None
        assert reader.read(4096) == b"x" * 4096
        stream.write(b"y" * 4096)
        data = b"".join(reader.read(4096) for _ in range(16))
    assert data.endswith(b"y" * 4096)


def test_a_full_stream_keeps_its_first_error_and_drops_the_rest() -> None:
    with open("/dev/full", "wb", buffering=0) as raw:
        stream = io.TextIOWrapper(io.BufferedWriter(TolerantWriter(raw, blocking=True)))
        for _ in range(3):
            print("lost", file=stream, flush=True)
        error = first_error(stream)
    assert error is not None
    assert error.errno == errno.ENOSPC
