"""Documented speeds are those of the stored results."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import pytest

from pavdm_cli.bench.compare import compare, rows
from pavdm_cli.bench.throughput import SCHEMA

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_speed_section_is_made_from_the_stored_rows() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "performance.py"))
    document = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    begin, end = document.index(script["BEGIN"]), document.index(script["END"]) + len(script["END"])
    assert document[begin:end] == script["section"]()


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_every_script_can_be_imported(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(script.parent)
    assert runpy.run_path(str(script))["__doc__"]


@pytest.fixture
def script(tmp_path: Path) -> dict[str, Any]:
    """The script over copies of the stored rows, all measured at the same matmul throughput on an idle machine."""
    namespace = runpy.run_path(str(ROOT / "benchmarks" / "performance.py"))
    namespace["section"].__globals__["RESULTS"] = tmp_path
    for name in ("throughput.jsonl", "latency.jsonl", "released.jsonl"):
        write(tmp_path / name, [with_rate(row, 0.2) for row in stored_rows(name)])
    return namespace


def stored_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]


def with_rate(row: dict[str, Any], rate: float) -> dict[str, Any]:
    """The row with another matmul throughput, of a machine that ran nothing else."""
    if "ceilings" not in row:
        return row
    return row | {"ceilings": row["ceilings"] | {"matrix_tflops": rate}, "env": row["env"] | {"other_cores": 0.0}}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_speedup_is_the_median_over_rounds(script: dict[str, Any]) -> None:
    ladder = script["quiet_rows"]("throughput.jsonl", "ablate", "mid")[-1]
    names = ("released operations", list(ladder["samples"])[-1])
    rounds = list(zip(*(ladder["samples"][name] for name in names), strict=True))
    assert f"| {median(base / speed for base, speed in rounds):.2f}x |" in script["section"]()
    section = " ".join(script["section"]().split())
    assert f"{len(rounds)} rounds: a step is the median over rounds, and so is the speedup" in section


def test_rows_are_found_with_precision_among_the_execution_switches_or_not(
    script: dict[str, Any],
) -> None:
    rows = script["quiet_rows"]("throughput.jsonl", "throughput", "pocket", random_weights=False, precision="fp32")
    assert {"precision" in row["config"] for row in rows} == {True, False}


def comparable_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row as if of weights and a machine that it shares with the others."""
    config, env = {"weights": "same", "size": [128, 192]}, {"processor": "AMD EPYC"}
    return row | {"config": row["config"] | config, "env": row["env"] | env}


def test_a_median_is_of_rows_with_the_same_weights_size_and_machine(script: dict[str, Any]) -> None:
    rows = script["quiet_rows"]("throughput.jsonl", "throughput", "pocket", random_weights=False, precision="fp32")
    same = [comparable_row(row) for row in rows[-3:]]
    assert script["median_row"](same)
    for field, name, value in (
        ("config", "weights", "others"),
        ("config", "size", [64, 96]),
        ("env", "processor_model", "25/17"),
        ("env", "instruction_set", "AVX512"),
        ("env", "threads", 1),
    ):
        other = same[0] | {field: same[0][field] | {name: value}}
        assert script["median_row"]([other, *same[1:]]) is None
        assert script["median_row"]([other, *same]) in same


def test_a_row_of_a_busy_machine_is_not_used(script: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "throughput.jsonl"
    rows = [comparable_row(row) for row in script["rows_of"]("throughput.jsonl")]
    write(path, rows)
    assert "| denoising alone, steady state |" in script["section"]()
    write(path, [with_rate(row, 0.189 if row["config"]["model"] == "pocket" else 0.191) for row in rows])
    assert "The speed of `pocket` has fewer than three rows of these weights" in script["section"]()
    assert script["quiet_rows"]("throughput.jsonl", "throughput", "mid", context_cache="recompute") != []
    write(path, [with_rate(row, 0.191) for row in rows])
    assert "| denoising alone, steady state |" in script["section"]()


def test_a_row_taken_next_to_a_busy_process_is_not_used(script: dict[str, Any]) -> None:
    (row, *_), is_quiet = script["quiet_rows"]("throughput.jsonl", "throughput", "pocket"), script["is_quiet"]
    for cores, quiet in ((0.0, True), (0.05, True), (0.06, False), (1.0, False)):
        assert is_quiet(row | {"env": row["env"] | {"other_cores": cores}}, [row]) is quiet
    unknown = {name: value for name, value in row["env"].items() if name != "other_cores"}
    assert not is_quiet(row | {"env": unknown}, [row])


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads Linux's /proc/stat")
def test_the_cpu_time_of_other_processes_excludes_our_own(script: dict[str, Any]) -> None:
    def total() -> float:
        return sum(map(int, Path("/proc/stat").read_text().split()[1:4])) / os.sysconf("SC_CLK_TCK")

    other, machine, start = script["other_cpu_seconds"](), total(), process_time()
    while process_time() - start < 0.5:
        pass
    assert total() - machine - (script["other_cpu_seconds"]() - other) == pytest.approx(0.5, abs=0.1)


def test_rows_are_compared_within_a_machine_precision_and_number_of_threads(script: dict[str, Any]) -> None:
    (fast, *_), is_quiet = script["quiet_rows"]("throughput.jsonl", "throughput", "pocket"), script["is_quiet"]
    slow = with_rate(fast, 0.1)
    assert not is_quiet(slow, [fast, slow])
    for name, value in (("processor", "another"), ("threads", 1)):
        other = slow | {"env": slow["env"] | {name: value}}
        assert is_quiet(other, [fast, other]), name
    other = slow | {"ceilings": slow["ceilings"] | {"matrix": "1536^3 bfloat16, random data, best of 9"}}
    assert is_quiet(other, [fast, other])


def test_a_busy_measurement_is_repeated_and_only_quiet_ones_are_stored(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates = iter([0.1, 0.1, 0.2, 0.3, 0.3])  # the first row is quiet until there are better ones
    row = script["quiet_rows"]("throughput.jsonl", "throughput", "pocket")[-1]
    scope = script["measure"].__globals__
    monkeypatch.setitem(scope, "MEASUREMENTS", [("throughput.jsonl", ("throughput",))] * 3)
    monkeypatch.setitem(scope, "bench", lambda out, words: with_rate(row, next(rates)))
    rows = script["measure"]()
    assert [row["ceilings"]["matrix_tflops"] for _, row in rows] == [0.3, 0.3]


@pytest.mark.parametrize("name", ["throughput.jsonl", "latency.jsonl"])
def test_stored_rows_have_raw_samples_ceilings_and_settings_and_can_be_compared(name: str) -> None:
    stored = [json.loads(line) for line in (RESULTS / name).read_text().splitlines()]
    assert {row["schema"] for row in stored} == {SCHEMA}
    for row in stored[-1:]:
        assert row["ceilings"]["matrix_tflops"] > 0
        assert row["ceilings"]["copy_gb_s"] > 0
        assert {"device", "threads"} <= row["config"].keys()
        assert {"engine", "execution"} & row["config"].keys()
        assert all(values == [] or min(values) > 0 for values in row["samples"].values())
        assert row["env"]["commit"]
    assert rows(RESULTS / name)
    assert [comparison for comparison in compare(RESULTS / name, RESULTS / name) if comparison.ratio != 1] == []
