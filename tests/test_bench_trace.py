"""Profiles list the operations of a step, and write a trace that can be opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from support.requests import make_request
from support.tape import Tape
from test_bench_released import SMALL
from torch import Tensor
from torch.autograd import DeviceType
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.bench import architectures, throughput
from pavdm_cli.bench.architectures import Architecture
from pavdm_cli.bench.throughput import open_architecture
from pavdm_cli.bench.trace import most_expensive, trace
from pavdm_cli.errors import DeviceError, OutputError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request
from pavdm_cli.models.execution import REFERENCE
from pavdm_cli.sampling import cuda_graphs
from pavdm_cli.sampling.cuda_graphs import GraphCapturer


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that need not be measured here."""
    monkeypatch.setattr(throughput, "ceilings", lambda device, dtype: {"matrix_tflops": 1.0, "copy_gb_s": 1.0})


def asked(**engine) -> Request:
    return make_request("a", seconds=1, model="opensora-v1.2", threads=1, **engine)


def test_the_trace_holds_the_operations_and_the_table_the_dearest(tmp_path: Path) -> None:
    row, path = trace(asked(), SMALL, tmp_path / "new")
    names = [operation["name"] for operation in row["operations"]]
    assert "mkldnn::_linear_pointwise" in names or "aten::addmm" in names
    assert len(names) == 10
    spent = [operation["self_ms"] for operation in row["operations"]]
    assert spent == sorted(spent, reverse=True)
    assert 0.5 < sum(operation["share"] for operation in row["operations"]) <= 1
    assert 0 < row["summary"]["issuing_share"] < 10  # so small a network is nearly all issuing; a busy machine adds
    assert row["summary"]["step_ms"] == pytest.approx(1e3 * median(row["samples"]["steady_steps_s"]), rel=0.1)
    assert len(row["samples"]["issuing_s"]) == 15
    events = json.loads(path.read_text())["traceEvents"]
    assert names[0] in {event.get("name") for event in events}


@pytest.mark.integration
def test_plain_is_profiled_as_it_runs(tmp_path: Path) -> None:
    names = {operation["name"] for operation in trace(asked(execution=REFERENCE), SMALL, tmp_path)[0]["operations"]}
    assert "mkldnn::_linear_pointwise" not in names


@dataclass
class Launches(Tape):
    """Counts replays, which change nothing."""

    def capture(self, call: Callable[[], Tensor], /) -> tuple[Tensor, Callable[[], object]]:
        out = call()
        return out, self.replayed

    def replayed(self) -> None:
        self.replays += 1


@pytest.mark.parametrize(("bound", "recorded"), [(10, False), (10**9, True)])
def test_issuing_is_that_of_graphs_only_where_the_step_itself_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int, recorded: bool
) -> None:
    capturers: list[GraphCapturer] = []

    def on_a_gpu(mode: str, device: torch.device, values: int, unrecordable: str) -> GraphCapturer | None:
        assert not unrecordable
        most = cuda_graphs.max_captured_latents(mode, torch.device("cuda"), values)
        capturers.append(GraphCapturer(Launches(), most))
        return capturers[-1] if most else None

    monkeypatch.setattr(cuda_graphs, "MAX_LAUNCH_BOUND_VALUES", bound * stream(SMALL))
    monkeypatch.setattr(pipeline, "choose_graphs", on_a_gpu)
    trace(asked(), SMALL, tmp_path)
    assert [capturer.backend.replays > 0 for capturer in capturers] == [recorded, recorded]


def stream(architecture: Architecture) -> int:
    """Values that a latent takes."""
    job, model = open_architecture(asked(), architecture)
    return model.residual_values(job.guidance_scale)


def test_shares_are_of_the_time_of_all_operations() -> None:
    events = [SimpleNamespace(key=f"op{n}", self_cpu_time_total=1e3 * n, count=n) for n in range(1, 15)]
    rows = most_expensive(events, torch.device("cpu"))
    assert rows[0] == {"name": "op14", "self_ms": 14.0, "share": 14 / 105, "calls": 14}
    assert [operation["name"] for operation in rows] == [f"op{n}" for n in range(14, 4, -1)]


def test_time_on_a_gpu_is_counted_once_by_its_kernels() -> None:
    """Torch gives a kernel's time to the operation that launched it as well, and to marks around both."""

    def event(key: str, kind: DeviceType, spent: float, mark: bool = False) -> SimpleNamespace:
        where = {"device_type": kind, "is_user_annotation": mark}
        return SimpleNamespace(key=key, self_device_time_total=spent, self_cpu_time_total=9.0, count=1, **where)

    events = [
        event("aten::addmm", DeviceType.CPU, 3e3),
        event("gemm", DeviceType.CUDA, 3e3),
        event("norm", DeviceType.CUDA, 1e3),
        event("step", DeviceType.CUDA, 4e3, mark=True),
    ]
    rows = [(row["name"], row["self_ms"], row["share"]) for row in most_expensive(events, torch.device("cuda"))]
    assert rows == [("gemm", 3.0, 0.75), ("norm", 1.0, 0.25)]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        trace(asked(), SMALL, tmp_path / "file" / "folder")


@pytest.mark.integration
def test_the_command_prints_the_path_and_rejects_unknown_architectures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "get", lambda name: SMALL.video_model)
    words = ["bench", "throughput", "--threads", "1", "--profile", str(tmp_path)]
    result = CliRunner().invoke(app, [*words, "--arch", "mid"])
    assert result.exit_code == 0, result.output
    assert str(tmp_path) in result.stdout.replace("\n", "")
    stored = CliRunner().invoke(app, [*words, "--arch", "mid", "--json", "--output", str(tmp_path / "rows.jsonl")])
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (row["kind"], row) == ("profile", json.loads(stored.stdout))
    unwritable = ["--output", str(tmp_path / "no" / "rows.jsonl"), "--samples", "1", "--arch", "mid", "--threads", "1"]
    result = CliRunner().invoke(app, ["bench", "throughput", *unwritable])
    assert isinstance(result.exception, OutputError)
    cuda_on = CliRunner().invoke(app, [*words, "--arch", "mid", "--cuda-graphs", "on", "--device", "cpu"])
    assert isinstance(cuda_on.exception, DeviceError)
    assert "unknown architecture 'huge'" in str(CliRunner().invoke(app, [*words, "--arch", "huge"]).exception)
