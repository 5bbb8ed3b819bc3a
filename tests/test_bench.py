"""The benchmark measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from support.requests import make_request
from test_bench_released import SMALL
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.bench import latency, stats
from pavdm_cli.bench.architectures import find_architecture
from pavdm_cli.bench.report import lines
from pavdm_cli.bench.throughput import architecture_throughput, throughput
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import Request, build_request, flat_values
from pavdm_cli.models.execution import REFERENCE, ExecutionConfig


@pytest.mark.integration
def test_a_row_says_what_was_measured_where_and_against_what():
    request = make_request("a red ball over hills", seconds=5, steps=6, threads=1)
    seen: list[int] = []
    row = json.loads(json.dumps(throughput(request, seen.append)))
    assert row["schema"] == "pavdm.bench/1"
    assert sum(seen) == 40
    assert row["config"]["steps"] == 6
    assert row["env"]["torch"] == torch.__version__
    assert row["attention"]["name"] == "sdpa"
    assert "heads of 32" in row["attention"]["reason"]
    summary = row["summary"]
    assert 0 < summary["matrix_share"] < 10  # a wrong unit is off by a thousand; a busy machine is not
    assert summary["step_p50_ms"] <= summary["step_p99_ms"]
    assert summary["first_frame_warm_s"] < summary["first_frame_cold_s"]
    assert summary["end_to_end_fps"] < summary["steady_fps"] * 1.5
    assert row["ceilings"]["copy_gb_s"] > 0
    assert row["config"]["execution"]["fused_kernels"] is True
    samples = row["samples"]
    counts = [len(samples[f"{phase}_steps_s"]) for phase in ("growth", "steady", "drain")]
    assert counts == [6, 8, 5]  # four of the steady ones generate the rest of the warm-up
    for name in ("text", "denoise", "decode", "write", "end_to_end", "first_frame_cold", "first_frame_warm"):
        (sample,) = samples[f"{name}_s"]
        assert sample == pytest.approx(summary.get(f"{name}_s", sample), abs=1e-6)
    assert len(samples["steady_chunks_s"]) == 8
    assert summary["chunk_p50_ms"] <= summary["chunk_p99_ms"]
    stages = [summary[f"{name}_s"] for name in ("text", "denoise", "decode", "write")]
    assert min(stages) > 0
    assert stages[1] == max(stages)
    assert summary["steady_s"] == pytest.approx(sum(samples["steady_steps_s"]), rel=1e-3)


def test_an_architecture_with_random_weights_claims_no_whole_video():
    request = make_request("a", seconds=1, model="opensora-v1.2", threads=1)
    row = architecture_throughput(request, SMALL, 4)
    assert row["config"]["random_weights"] is True
    assert row["config"]["model"] == "mid"
    assert {len(row["samples"]["steady_steps_s"])} == {4}
    assert [len(row["samples"][f"{phase}_steps_s"]) for phase in ("growth", "drain")] == [0, 0]
    assert [name for name in row["summary"] if "end_to_end" in name or "first_frame" in name] == []
    assert row["summary"]["step_p50_ms"] > 0
    assert any("steady" in label for label, _ in lines(row))


@pytest.mark.integration
def test_random_weights_make_a_whole_video_where_asked():
    request, frames = make_request("a", frames=14, steps=6, threads=1), []
    row = architecture_throughput(request, find_architecture("pocket"), 3, frames.append)
    assert sum(frames) == row["config"]["frames"] == 14
    assert row["config"]["random_weights"] is True
    assert row["summary"]["end_to_end_fps"] == pytest.approx(14 / row["samples"]["end_to_end_s"][0])
    assert min(row["summary"][f"{name}_s"] for name in ("text", "denoise", "decode", "write")) > 0


def test_a_network_alone_makes_no_whole_video():
    request = make_request("a", seconds=1, model="opensora-v1.2", threads=1)
    with pytest.raises(UsageError, match="'mid' has no VAE"):
        architecture_throughput(request, SMALL, 4, lambda frames: None)


@pytest.mark.integration
def test_a_run_does_not_import_triton():
    code = """
        import sys
        from pavdm_cli.generation import pipeline
        from pavdm_cli.bench import steps
        from pavdm_cli.bench.throughput import denoising, raw_samples, row
        from pavdm_cli.generation.resolve import resolve
        from pavdm_cli.generation.request import build_request

        job = resolve(build_request({"prompt": "a red ball", "frames": 2, "steps": 6, "threads": 1}))
        model = pipeline.open_model(job)
        step_times = steps.time_all_steps(job, model, steps.prepare_sampling(job, model))
        row("throughput", job, model, raw_samples(step_times), denoising(job, model, step_times))
        print("triton" in sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "False"), result.stderr


def test_a_new_process_is_told_every_switch(monkeypatch):
    seen: list[Request] = []
    monkeypatch.setattr("pavdm_cli.commands.generate.generate_videos", lambda request, *rest: seen.append(request))
    engines = [
        ExecutionConfig(),
        ExecutionConfig(compile=True, context_cache="recompute", cuda_graphs="off", overlap_decode="off"),
    ]
    for engine in engines:
        video_request = make_request("a red ball", frames=3, seed=1, execution=engine)
        CliRunner().invoke(app, latency.command(video_request, Path("video.mp4"))[3:], catch_exceptions=False)
    assert [request.execution for request in seen] == engines


@pytest.mark.integration
def test_making_up_weights_does_not_import_the_compiler():
    code = """
        import sys
        from pavdm_cli.bench.architectures import find_architecture
        from pavdm_cli.bench.throughput import open_architecture
        from pavdm_cli.generation.request import build_request

        request = build_request({"prompt": "a", "seconds": 1, "model": "opensora-v1.2", "threads": 1})
        open_architecture(request, find_architecture("mid"))
        print("torch._dynamo" in sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "False"), result.stderr


@pytest.mark.integration
def test_every_wait_is_measured_as_often_as_asked(monkeypatch):
    monkeypatch.setattr(latency, "cold", lambda request: 1.0)
    request = make_request("a red ball over hills", seconds=4, steps=6, threads=1)
    seen: list[int] = []
    row = json.loads(json.dumps(latency.latency(request, 1, seen.append)))
    assert (row["kind"], sum(seen)) == ("latency", 1)
    assert row["samples"]["first_frame_cold_s"] == [1.0]
    assert len(row["samples"]["growth_chunk_s"]) == 6
    assert len(row["samples"]["steady_chunk_s"]) == 2
    summary = row["summary"]
    assert summary["playable_file_p50_s"] <= summary["whole_file_p50_s"]
    assert summary.keys() >= {f"{name}_p50_s" for name in latency.WAITS}


@pytest.mark.integration
def test_with_random_weights_each_wait_of_one_process_is_measured():
    request = make_request("a", frames=30, steps=6, threads=1)
    row = latency.latency(request, 1, lambda rounds: None, find_architecture("pocket"))
    assert row["config"]["random_weights"] is True
    measured = {name: len(values) for name, values in row["samples"].items() if values}
    assert measured == {"first_frame_warm_s": 1, "growth_chunk_s": 6, "steady_chunk_s": 2}
    with pytest.raises(UsageError, match="'mid' has no VAE"):
        latency.latency(request, 1, lambda rounds: None, SMALL)


def test_a_new_process_is_asked_for_the_same_video():
    request = make_request("a red ball over hills", frames=3, steps=6, seed=5, execution=REFERENCE)
    assert build_request(json.loads(json.dumps(flat_values(request)))) == request


def test_a_percentile_is_the_nearest_rank_and_a_spread_ignores_one_slow_sample():
    samples = [float(n) for n in range(1, 101)]
    assert (stats.percentile(samples, 0.99), stats.percentile(samples, 0.5)) == (99, 50)
    assert stats.percentile([3.0], 0.99) == 3
    assert stats.median_deviation([1, 2, 3, 4, 100]) == 1
