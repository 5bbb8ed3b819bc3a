"""What is said of speed is what was stored."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pavdm_cli.app import app
from pavdm_cli.attention import BACKENDS
from pavdm_cli.bench.compare import compare, rows
from pavdm_cli.bench.throughput import SCHEMA

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_readme_says_what_the_stored_rows_say() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = readme.index(made["BEGIN"]), readme.index(made["END"]) + len(made["END"])
    assert readme[begin:end] == made["section"]()


def test_every_command_for_a_gpu_is_one_that_there_is(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    commands = [list(map(str, command)) for part in made["PARTS"].values() for command in part(tmp_path, "cuda")]
    for words in commands:
        assert all(Path(word).exists() for word in words if word.startswith(str(ROOT)))
        if words[:3] == list(made["PAVDM"]):
            parsed(get_command(app), words[3:])
    named = [words[words.index("--attention") + 1] for words in commands if "--attention" in words[:-1]]
    assert named == list(BACKENDS)


def parsed(command: Any, words: list[str]) -> None:
    """Read the words as the command line would, down to the command that they name, and do nothing."""
    if words and hasattr(command, "commands"):
        parsed(command.commands[words[0]], words[1:])
    else:
        command.make_context("", words)


@pytest.mark.parametrize("name", ["throughput.jsonl", "latency.jsonl"])
def test_stored_rows_have_raw_samples_ceilings_and_settings_and_can_be_compared(name: str) -> None:
    stored = [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]
    assert {row["schema"] for row in stored} == {SCHEMA}
    for row in stored[-1:]:
        assert row["ceilings"]["matrix_tflops"] > 0
        assert row["ceilings"]["copy_gb_s"] > 0
        assert {"engine", "device", "threads"} <= row["config"].keys()
        assert all(values == [] or min(values) > 0 for values in row["samples"].values())
        assert row["env"]["commit"]
    assert rows(RESULTS / name)
    assert [one for one in compare(RESULTS / name, RESULTS / name) if one.ratio != 1] == []
