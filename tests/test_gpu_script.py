"""The script for a borrowed GPU machine: its commands exist, have time limits, and are resumed."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.main import get_command

from pavdm_cli.app import app
from pavdm_cli.attention import BACKENDS
from pavdm_cli.bench import env
from pavdm_cli.bench.kernels import MEASURED

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "benchmarks" / "gpu.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def python(*words: str) -> tuple[str, ...]:
    """A command that runs a line of Python."""
    return (sys.executable, "-c", *words)


def set_tasks(script: ModuleType, monkeypatch: pytest.MonkeyPatch, limit: int = 60, **commands: Any) -> None:
    tasks = {name: script.Task(limit, lambda target, command=command: command) for name, command in commands.items()}
    monkeypatch.setattr(script, "TASKS", tasks)


def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        script.main()
    return int(end.value.code or 0)


def test_every_command_exists(script: ModuleType, tmp_path: Path) -> None:
    for target in (script.Target(tmp_path, tmp_path), script.Target(tmp_path, tmp_path, "cpu", tiny=True)):
        commands = [list(map(str, command)) for task in script.TASKS.values() for command in task.commands(target)]
        for words in commands:
            assert all(Path(word).exists() for word in words if word.startswith(str(ROOT)))
            if words[:3] == list(script.PAVDM):
                parse(get_command(app), words[3:])
    assert list(BACKENDS) == list(script.ATTENTION)


def parse(command: Any, words: list[str]) -> None:
    """Parse the words as the command line would, without running the command."""
    if words and hasattr(command, "commands"):
        parse(command.commands[words[0]], words[1:])
    else:
        command.make_context("", words)


def test_a_failed_command_stops_nothing_and_is_not_retried(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    writes = python(f"open({str(mark)!r}, 'a').write('x')")
    set_tasks(script, monkeypatch, broken=[python("print('a reason'); raise SystemExit(3)"), writes], fine=[writes])
    assert call(script, monkeypatch, tmp_path / "one") == 1
    assert mark.read_text() == "xx"
    output = capsys.readouterr().out
    assert "FAILED 3" in output
    assert "a reason" in output
    assert call(script, monkeypatch, tmp_path / "two", "--before", tmp_path / "one") == 0
    assert mark.read_text() == "xx"
    assert call(script, monkeypatch, tmp_path / "two", "fine") == 0
    assert mark.read_text() == "xxx"


def test_a_task_that_times_out_is_left_for_the_next_call(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "MIN_SECONDS", 0.5)
    endless = python("import time; time.sleep(600)")
    set_tasks(script, monkeypatch, first=[], second=[endless, endless], third=[python("pass")])
    assert call(script, monkeypatch, tmp_path, "--minutes", 2 / 60) == 1
    assert script.finished_tasks([tmp_path]) == {"first"}
    set_tasks(script, monkeypatch, first=[endless], second=[python("pass")], third=[python("pass")])
    assert call(script, monkeypatch, tmp_path) == 0
    assert script.finished_tasks([tmp_path]) == {"first", "second", "third"}


def test_a_command_that_times_out_is_killed_with_its_children(script: ModuleType, tmp_path: Path) -> None:
    child, writing = tmp_path / "child", tmp_path / "writing"
    starts = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(writing)!r}, 'w').write(str(p.pid))\n"
        f"__import__('os').rename({str(writing)!r}, {str(child)!r}); p.wait()"
    )
    parent = subprocess.Popen(python(starts), process_group=0)
    wait_until(child.exists)
    assert sys.modules["unattended"].wait_or_kill(parent, 0.1) == sys.modules["unattended"].TIMED_OUT
    wait_until(lambda: has_ended(int(child.read_text())))


def wait_until(event: Callable[[], bool]) -> None:
    """Wait for up to a minute."""
    deadline = time.monotonic() + 60
    while not event():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(process: int) -> bool:
    """Whether a process does not exist, or is a zombie."""
    try:
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_a_task_that_hangs_is_killed_and_counts_as_failed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_tasks(script, monkeypatch, limit=1, hung=[python("import time; time.sleep(600)")], after=[python("pass")])
    assert call(script, monkeypatch, tmp_path) == 1
    assert script.finished_tasks([tmp_path]) == {"hung", "after"}


def test_rows_are_printed_at_once_and_get_the_commit(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "throughput.jsonl"
    row = {"kind": "throughput", "env": {"commit": None}, "config": {"model": "pocket"}, "summary": {"steady_fps": 7.5}}
    write = f"open({str(rows)!r}, 'a').write({json.dumps(row)!r} + chr(10))"
    set_tasks(
        script, monkeypatch, one=[python(write), python(write)], cut=[python(f"open({str(rows)!r}, 'a').write('{{')")]
    )
    assert call(script, monkeypatch, tmp_path, "--commit", "abc") == 0
    assert capsys.readouterr().out.count("throughput pocket steady_fps 7.5") == 2
    lines = rows.read_text().splitlines()
    assert [json.loads(line)["env"]["commit"] for line in lines[:2]] == ["abc", "abc"]


def test_printed_fields_are_among_the_stored_ones(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    files = [path.read_text().splitlines() for path in (ROOT / "benchmarks/results").glob("*.jsonl")]
    rows = [json.loads(line) for lines in files for line in lines]
    stored = {name for row in rows for name in row.get("summary") or ()}
    stored |= {*MEASURED.values(), *env.peak_memory(torch.device("cuda"))}
    assert set(script.unattended.SUMMARY_FIELDS) <= stored


def test_missing_packages_are_named_in_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "PACKAGES", ("torch", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="not installed: no_such_package"):
        script.main()


def test_a_trace_is_compressed_and_dropped_if_it_is_large(script: ModuleType, tmp_path: Path) -> None:
    trace, compressed = tmp_path / "trace.json", tmp_path / "trace.json.gz"
    trace.write_text("{}" * 1000)
    script.unattended.compress(str(trace), str(compressed))
    assert gzip.decompress(compressed.read_bytes()) == trace.read_bytes()
    compressed.unlink()
    script.unattended.MAX_TRACE_BYTES, before = 10, script.unattended.MAX_TRACE_BYTES
    script.unattended.compress(str(trace), str(compressed))
    script.unattended.MAX_TRACE_BYTES = before
    assert not compressed.exists()
