"""Kernels compiled for GPUs that are not present: no spills, few registers, wide loads, a correct table."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pavdm_cli.bench import bandwidth, kernels
from pavdm_cli.bench.compile import Resources
from pavdm_cli.bench.kernels import KernelSelection, limit_violations
from pavdm_cli.errors import UsageError
from pavdm_kernels.ops import OPS

ROOT = Path(__file__).parents[1]
STORED = ROOT / "benchmarks" / "results" / "kernels-compile.jsonl"
GATE = [
    "--gpu-arch",
    "sm_80",
    "--gpu-arch",
    "sm_90",
    "--dtype",
    "bf16",
    "--width",
    "1152",
    "--width",
    "192",
    "--width",
    "1536",
]
CONTEXT = ("op", "sizes", "dtype", "arch")
BY_NAME = {op.name: op for op in OPS}
TAKEN = {"registers": 64, "spill_bytes": 0, "shared_bytes": 1024, "matrix": 8}
GOOD = Resources(**TAKEN, load_128=4, load_less=1, store_128=2, store_less=0)


def built(*words: str) -> subprocess.CompletedProcess[str]:
    """What Python says in a process where kernels are not interpreted."""
    triton = pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
        pytest.skip("this Triton has no compiler for NVIDIA GPUs")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900, check=False)


def by_case(rows):
    return {json.dumps([row[name] for name in CONTEXT]): row for row in rows}


@pytest.mark.long  # `.ci/triton` runs it, too
def test_every_kernel_keeps_its_limits_and_is_what_the_stored_table_says():
    result = built("-m", "pavdm_cli", "bench", "kernels", "--compile-only", "--json", *GATE)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["op"] for row in rows} == set(BY_NAME)
    stored = by_case(json.loads(line) for line in STORED.read_text().splitlines())
    for case, row in by_case(rows).items():
        assert row["failed"] == []
        assert stored[case] == row or stored[case]["triton"] != row["triton"]


def test_the_stored_table_holds_every_build():
    rows = [json.loads(line) for line in STORED.read_text().splitlines()]
    expected = [
        {"op": op.name, "sizes": sizes, "dtype": dtype, "arch": arch}
        for op, sizes, dtype, arch in KernelSelection().builds()
    ]
    assert [{name: row[name] for name in CONTEXT} for row in rows] == expected
    assert {f"triton=={row['triton']}" for row in rows} <= set((ROOT / "constraints.txt").read_text().splitlines())
    assert [row for row in rows if row["failed"]] == []
    assert all(row["load_less"] == BY_NAME[row["op"]].scalar_loads and row["store_less"] == 0 for row in rows)


@pytest.mark.integration
def test_a_row_that_is_read_or_written_narrowly_fails():
    result = built("tests/support/narrow.py")
    assert result.returncode == 0, result.stderr
    reasons_by_bug = json.loads(result.stdout)
    assert reasons_by_bug.pop("euler_step-nothing") == []
    assert len(reasons_by_bug) == 4
    for bug, reasons in reasons_by_bug.items():
        accesses = "stores" if "output" in bug else "loads"
        assert any(f" {accesses} of less than 16 bytes" in reason for reason in reasons), bug


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("modulate", {"spill_bytes": 8}, "8 bytes spilt, none allowed"),
        ("modulate", {"registers": 129}, "129 registers, at most 128"),
        ("modulate", {"load_128": 0}, "no load of 16 bytes"),
        ("modulate", {"load_less": 7}, "7 loads of less than 16 bytes, expected 1"),
        ("modulate", {"load_less": 0}, "0 loads of less than 16 bytes, expected 1"),
        ("modulate", {"store_less": 1}, "1 stores of less than 16 bytes, none allowed"),
        ("modulate", {"shared_bytes": 99 * 1024 + 1}, "101377 bytes of shared memory, at most 101376"),
        ("temporal_attention", {"matrix": 0}, "no matrix instruction"),
    ],
)
def test_a_kernel_beyond_a_limit_fails(name, change, reason):
    good = dataclasses.replace(GOOD, load_less=BY_NAME[name].scalar_loads)
    assert list(limit_violations(BY_NAME[name], dataclasses.replace(good, **change), "bf16", "sm_89")) == [reason]
    assert list(limit_violations(BY_NAME[name], good, "bf16", "sm_89")) == []


def test_unknown_names_are_rejected():
    with pytest.raises(UsageError, match="unknown architecture sm_70"):
        KernelSelection(architectures=["sm_70"])
    with pytest.raises(UsageError, match="unknown dtype fp8"):
        KernelSelection(dtypes=["fp8"])


def test_a_device_is_measured_against_its_own_copy_rate(monkeypatch):
    monkeypatch.setattr(kernels, "OPS", [dataclasses.replace(op, model_sizes=op.test_sizes[:1]) for op in OPS])
    monkeypatch.setattr(kernels, "copy_rate", lambda device: 10.0)
    monkeypatch.setattr(kernels, "measure", functools.partial(bandwidth.measure, working_set=1))
    rows = kernels.measure_all(KernelSelection(dtypes=["fp32"]), torch.device("cpu"))
    assert [row["config"]["op"] for row in rows] == list(BY_NAME)
    summaries = [row["summary"] for row in rows]
    assert all(0 <= summary["error"] <= summary["tolerance"] for summary in summaries)
    assert [row["failed"] for row in rows] == [[]] * len(rows)
    assert all(summary["copy_share"] == summary["gb_s"] / 10.0 > 0 for summary in summaries)
    assert [len(line) for line in kernels.lines(rows, kernels.MEASURED)] == [len(kernels.MEASURED)] * len(rows)


def test_a_copy_moves_every_byte_twice(monkeypatch):
    monkeypatch.setattr(bandwidth, "seconds_per_call", lambda calls, device: [2.0])
    assert bandwidth.copy_rate(torch.device("cpu"), size=4096) == 2 * 4096 / 2.0 / 1e9
