"""Kernel benchmarks: working sets exceed every cache, and results are stored as rows."""

from __future__ import annotations

import dataclasses
import functools
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.bench import bandwidth, kernels, synchronize
from pavdm_cli.bench.compare import compare
from pavdm_cli.bench.throughput import SCHEMA
from pavdm_kernels.op import Op
from pavdm_kernels.ops import OPS

CPU = torch.device("cpu")
BY_NAME = {op.name: op for op in OPS}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations at sizes that take no time, on a machine whose rate of copying is known."""
    monkeypatch.setattr(kernels, "OPS", [dataclasses.replace(op, model_sizes=op.test_sizes[:1]) for op in OPS])
    monkeypatch.setattr(kernels, "copy_rate", lambda device: 10.0)
    monkeypatch.setattr(kernels, "measure", functools.partial(bandwidth.measure, working_set=1))


def test_rows_of_kernels_have_raw_samples_and_can_be_compared(small: None, tmp_path: Path) -> None:
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    result = CliRunner().invoke(
        app, ["bench", "kernels", "--device", "cpu", "--dtype", "fp32", "--output", str(paths[0])]
    )
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert {(row["schema"], row["kind"]) for row in rows} == {(SCHEMA, "kernels")}
    assert len(rows) == len(OPS)
    for row in rows:
        ((name, samples),) = row["samples"].items()
        assert (name.split()[0], len(samples)) == (row["config"]["op"], bandwidth.SAMPLES)
        assert row["summary"]["gb_s"] == pytest.approx(row["summary"]["bytes"] / median(samples) / 1e9, rel=1e-2)
        row["samples"] = {name: [100 * sample for sample in samples]}
    paths[1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparisons = compare(*paths)
    assert [comparison.name.split()[0] for comparison in comparisons] == list(BY_NAME)
    assert all(comparison.allowed is not None and comparison.ratio == pytest.approx(100) for comparison in comparisons)


def test_compiled_kernels_are_appended_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_one(choice: kernels.KernelSelection, keep: Any) -> list[dict[str, Any]]:
        row = dict.fromkeys(kernels.COLUMNS, 1) | {"op": "rope", "sizes": {}, "failed": []}
        keep(row)
        return [row]

    monkeypatch.setattr(kernels, "compile_all", compile_one)
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    result = CliRunner().invoke(app, ["bench", "kernels", "--compile-only", "--json", "--output", str(path)])
    assert result.exit_code == 0, result.output
    assert [json.loads(line).get("op") for line in path.read_text().splitlines()] == [None, "rope"]


def test_rows_are_kept_as_they_come_and_an_operation_that_breaks_hides_no_other(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "rows.jsonl", kernels.measure
    path.write_text('{"kept": "from before"}\n')
    stored: list[int] = []

    def broken(op: Op, *args: Any) -> bandwidth.OpMeasurement:
        stored.append(len(path.read_text().splitlines()))
        if op is kernels.OPS[1]:
            raise RuntimeError("an illegal memory access\nand a long list")
        return before(op, *args)

    monkeypatch.setattr(kernels, "measure", broken)
    result = CliRunner().invoke(app, ["bench", "kernels", "--device", "cpu", "--dtype", "fp32", "--output", str(path)])
    assert stored == list(range(1, len(OPS) + 1))
    rows = [json.loads(line) for line in path.read_text().splitlines()][1:]
    assert [row["failed"] for row in rows if row["failed"]] == [["RuntimeError: an illegal memory access"]]
    assert rows[1]["failed"]
    assert all(row["samples"] for row in rows if not row["failed"])
    assert f"1 of {len(OPS)} kernels" in str(result.exception)
    op = kernels.OPS[1]
    case = [op.name, *(f"{key}{size}" for key, size in op.model_sizes[0].items()), "fp32"]
    assert f"failed: {' '.join(case)}: RuntimeError: an illegal memory access" in result.stderr.splitlines()


@pytest.mark.parametrize("name", ["timestep_embedding", "euler_step"])
def test_small_operations_go_through_as_much_memory_as_large_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, rotated = BY_NAME[name], 2**23
    counts: list[int] = []
    monkeypatch.setattr(bandwidth, "seconds_per_call", lambda calls, device: [counts.append(len(calls)) or 1.0])
    measurement = bandwidth.measure(op, op.test_sizes[0], torch.float32, CPU, rotated)
    assert counts[0] * measurement.bytes >= rotated > 64 * measurement.bytes


def test_waiting_for_a_gpu_is_no_part_of_what_a_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def take(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(synchronize.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(synchronize, "synchronize", lambda device: take(2e-5))
    monkeypatch.setattr(bandwidth, "round_of", lambda calls, device: lambda: [call() for call in calls])
    durations = bandwidth.seconds_per_call([lambda: take(3e-5)] * 3, torch.device("cuda"))
    assert durations == pytest.approx([3e-5] * bandwidth.SAMPLES, rel=1e-2)


def test_what_a_graph_writes_is_written_elsewhere_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    outputs: list[weakref.ref[Tensor]] = []

    class Graph:
        def replay(self) -> None: ...

    @contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        outputs.clear()
        yield
        alive.append(sum(ref() is not None for ref in outputs))

    def call() -> Tensor:
        out = torch.zeros(4)
        outputs.append(weakref.ref(out))
        return out

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    bandwidth.round_of([call] * 5, torch.device("cuda"))
    assert alive == [5]
