"""The benchmark measures what it says."""

from __future__ import annotations

import json

import torch

from pavdm_cli.bench import ceilings
from pavdm_cli.bench.throughput import throughput
from pavdm_cli.request import Request, Sampling
from pavdm_kernels import linear


def test_a_row_says_what_was_measured_where_and_against_what():
    request = Request("a red ball over hills", seconds=5, sampling=Sampling(steps=6, threads=1))
    seen: list[int] = []
    row = json.loads(json.dumps(throughput(request, seen.append)))
    assert row["schema"] == "pavdm.bench/1"
    assert sum(seen) == 40
    assert row["config"]["steps"] == 6
    assert row["env"]["torch"] == torch.__version__
    assert row["attention"]["name"] == "sdpa"
    assert "heads of 32" in row["attention"]["reason"]
    summary = row["summary"]
    assert 0 < summary["matrix_share"] < 1.5
    assert summary["step_p50_ms"] <= summary["step_p99_ms"]
    assert summary["first_frame_warm_s"] < summary["first_frame_cold_s"]
    assert summary["end_to_end_fps"] < summary["steady_fps"] * 1.5


def test_work_counts_the_operations_of_a_product():
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    assert ceilings.work(lambda: a @ b) * 1e12 == 2 * 10 * 20 * 30
    with torch.no_grad():
        assert ceilings.work(lambda: linear(a, b.T, None)) * 1e12 == 2 * 10 * 20 * 30
