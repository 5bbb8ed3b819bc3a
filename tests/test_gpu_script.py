"""The script for a borrowed GPU machine: its commands exist, have time limits, and continue after a cut."""

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


def says(*words: str) -> tuple[str, ...]:
    """A command that runs a line of Python."""
    return (sys.executable, "-c", *words)


def in_tasks(script: ModuleType, monkeypatch: pytest.MonkeyPatch, limit: int = 60, **commands: Any) -> None:
    tasks = {name: script.Task(limit, lambda to, command=command: command) for name, command in commands.items()}
    monkeypatch.setattr(script, "TASKS", tasks)


def called(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        script.main()
    return int(end.value.code or 0)


def test_every_command_is_one_that_there_is(script: ModuleType, tmp_path: Path) -> None:
    for place in (script.Place(tmp_path, tmp_path), script.Place(tmp_path, tmp_path, "cpu", tiny=True)):
        commands = [list(map(str, command)) for task in script.TASKS.values() for command in task.commands(place)]
        for words in commands:
            assert all(Path(word).exists() for word in words if word.startswith(str(ROOT)))
            if words[:3] == list(script.PAVDM):
                parsed(get_command(app), words[3:])
    assert list(BACKENDS) == list(script.ATTENTION)


def parsed(command: Any, words: list[str]) -> None:
    """Read the words as the command line would, down to the command that they name, and do nothing."""
    if words and hasattr(command, "commands"):
        parsed(command.commands[words[0]], words[1:])
    else:
        command.make_context("", words)


def test_what_fails_stops_nothing_and_is_not_tried_again(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    writes = says(f"open({str(mark)!r}, 'a').write('x')")
    in_tasks(script, monkeypatch, broken=[says("print('a reason'); raise SystemExit(3)"), writes], fine=[writes])
    assert called(script, monkeypatch, tmp_path / "one") == 1
    assert mark.read_text() == "xx"
    output = capsys.readouterr().out
    assert "FAILED 3" in output
    assert "a reason" in output
    assert called(script, monkeypatch, tmp_path / "two", "--before", tmp_path / "one") == 0
    assert mark.read_text() == "xx"
    assert called(script, monkeypatch, tmp_path / "two", "fine") == 0
    assert mark.read_text() == "xxx"


def test_what_the_clock_cuts_short_is_left_for_the_next_call(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "MIN_SECONDS", 0.5)
    endless = says("import time; time.sleep(600)")
    in_tasks(script, monkeypatch, first=[], second=[endless, endless], third=[says("pass")])
    assert called(script, monkeypatch, tmp_path, "--minutes", 2 / 60) == 1
    assert script.finished_tasks([tmp_path]) == {"first"}
    in_tasks(script, monkeypatch, first=[endless], second=[says("pass")], third=[says("pass")])
    assert called(script, monkeypatch, tmp_path) == 0
    assert script.finished_tasks([tmp_path]) == {"first", "second", "third"}


def test_a_command_that_is_cut_short_takes_all_that_it_started_with_it(script: ModuleType, tmp_path: Path) -> None:
    child, writing = tmp_path / "child", tmp_path / "writing"
    starts = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(writing)!r}, 'w').write(str(p.pid))\n"
        f"__import__('os').rename({str(writing)!r}, {str(child)!r}); p.wait()"
    )
    parent = subprocess.Popen(says(starts), process_group=0)
    awaited(child.exists)
    assert sys.modules["unattended"].wait_or_kill(parent, 0.1) == sys.modules["unattended"].TIMED_OUT
    awaited(lambda: gone(int(child.read_text())))


def awaited(event: Callable[[], bool]) -> None:
    """What happens in a minute, or an error."""
    until = time.monotonic() + 60
    while not event():
        assert time.monotonic() < until
        time.sleep(0.02)


def gone(process: int) -> bool:
    """Whether a process is no more, or is only not yet taken note of."""
    try:
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_a_task_that_hangs_is_ended_and_counts_as_failed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_tasks(script, monkeypatch, limit=1, hung=[says("import time; time.sleep(600)")], after=[says("pass")])
    assert called(script, monkeypatch, tmp_path) == 1
    assert script.finished_tasks([tmp_path]) == {"hung", "after"}


def test_rows_are_told_at_once_and_know_their_commit(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "throughput.jsonl"
    row = {"kind": "throughput", "env": {"commit": None}, "config": {"model": "pocket"}, "summary": {"steady_fps": 7.5}}
    write = f"open({str(rows)!r}, 'a').write({json.dumps(row)!r} + chr(10))"
    in_tasks(script, monkeypatch, one=[says(write), says(write)], cut=[says(f"open({str(rows)!r}, 'a').write('{{')")])
    assert called(script, monkeypatch, tmp_path, "--commit", "abc") == 0
    assert capsys.readouterr().out.count("throughput pocket steady_fps 7.5") == 2
    lines = rows.read_text().splitlines()
    assert [json.loads(line)["env"]["commit"] for line in lines[:2]] == ["abc", "abc"]


def test_figures_that_are_told_are_figures_that_are_written(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    files = [path.read_text().splitlines() for path in (ROOT / "benchmarks/results").glob("*.jsonl")]
    rows = [json.loads(line) for lines in files for line in lines]
    written = {name for row in rows for name in row.get("summary") or ()}
    written |= {*MEASURED.values(), *env.peak_memory(torch.device("cuda"))}
    assert set(script.unattended.FIGURES) <= written


def test_what_is_not_installed_is_said_in_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "PACKAGES", ("torch", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="not installed: no_such_package"):
        script.main()


def test_a_trace_is_packed_and_kept_where_it_is_small(script: ModuleType, tmp_path: Path) -> None:
    trace, packed = tmp_path / "trace.json", tmp_path / "trace.json.gz"
    trace.write_text("{}" * 1000)
    script.unattended.keep(str(trace), str(packed))
    assert gzip.decompress(packed.read_bytes()) == trace.read_bytes()
    packed.unlink()
    script.unattended.MAX_TRACE_BYTES, before = 10, script.unattended.MAX_TRACE_BYTES
    script.unattended.keep(str(trace), str(packed))
    script.unattended.MAX_TRACE_BYTES = before
    assert not packed.exists()
