"""What is said of speed is what was stored."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from statistics import median

import pytest

from pavdm_cli.bench.compare import compare, rows
from pavdm_cli.bench.throughput import SCHEMA

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_readme_says_what_the_stored_rows_say() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = readme.index(made["BEGIN"]), readme.index(made["END"]) + len(made["END"])
    assert readme[begin:end] == made["section"]()


def test_times_as_fast_in_the_readme_are_of_rounds_and_it_says_so() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))
    ladder = made["stored"]("throughput.jsonl", "ablate", "mid")[-1]
    rounds = list(zip(ladder["samples"]["released operations"], ladder["samples"]["+ compile"], strict=True))
    assert f"| {median(base / one for base, one in rounds):.2f}x |" in made["section"]()
    said = " ".join(made["section"]().split())
    assert f"{len(rounds)} rounds: a step is the median, and so is times as fast, taken round by round" in said


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
