"""Ray tasks without a cluster: their work, their deaths, and their resources."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command import pavdm
from support.requests import make_request

from pavdm_cli import __version__
from pavdm_cli.batch import cluster_job, resources
from pavdm_cli.batch.cluster_job import ClusterJob, render_job
from pavdm_cli.batch.job import Job, to_json
from pavdm_cli.batch.owner import Owner
from pavdm_cli.batch.queue import Attempt, JobStatus, Queue, open_queue
from pavdm_cli.batch.resources import Planner, Resources
from pavdm_cli.batch.store import FileStore
from pavdm_cli.commands import batch_ray
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_plan import DeviceMemory, MemoryPlan
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig

NAME = "a.mp4"
GIB = 2**30
NODE = Resources(gpus=0, cpus=8, host_bytes=16e9)
GPU_NODE = Resources(gpus=2, cpus=16, host_bytes=64e9)
ELSEWHERE = Owner("another machine", 1, 5.0)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def make_job(**values: Any) -> Job:
    fixed: dict[str, Any] = {"steps": 6, "warmup": 0, "scale": 1, "frames": 6}
    return Job(NAME, "jobs.txt:1", make_request("a red ball", **fixed | values))


def sent(folder: Path, last_attempt: int = 0, version: str = __version__) -> ClusterJob:
    return ClusterJob(str(folder), to_json(make_job()), last_attempt, "cpu", 1, False, version)


def test_a_task_renders_its_job_as_the_next_attempt(tmp_path: Path) -> None:
    queue = open_queue(FileStore(tmp_path))
    queue.claim(NAME, queue.status(NAME), threads=1)
    render_job(sent(tmp_path))  # another process was first
    assert not (tmp_path / NAME).exists()
    render_job(sent(tmp_path, last_attempt=1))
    attempt = queue.status(NAME).attempt
    assert attempt is not None
    assert (attempt.number, attempt.state, attempt.threads, attempt.frames) == (2, "done", 1, 6)
    assert (tmp_path / NAME).exists()
    assert len(queue.store.names(".queue/workers")) == 1  # that of this test


def test_a_node_with_another_version_renders_nothing(tmp_path: Path) -> None:
    with pytest.raises(PavdmError, match=rf"a node has pavdm {__version__}, but the batch was started with 0\.0"):
        render_job(sent(tmp_path, version="0.0"))
    assert not (tmp_path / ".queue").exists()


def test_a_cancelled_task_gives_its_job_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster_job, "perform", cancel)
    with pytest.raises(KeyboardInterrupt):
        render_job(sent(tmp_path))
    status = open_queue(FileStore(tmp_path)).status(NAME)
    assert status.attempt is not None
    assert (status.state, status.attempt.state) == ("queued", "stopped")


def claim(queue: Queue, frames: int) -> Attempt:
    """An attempt of a process on another machine, where nobody knows whether it lives."""
    last = queue.status(NAME).attempt
    attempt = queue.claim(NAME, JobStatus("queued", last), threads=1)
    assert attempt is not None
    attempt = Attempt(attempt.number, ELSEWHERE, threads=1, frames=frames)
    queue.store.replace(f".queue/attempts/{NAME}.{attempt.number}.json", json.dumps(asdict(attempt)).encode())
    return attempt


def test_an_attempt_that_is_known_to_be_dead_is_taken_over_at_once(tmp_path: Path) -> None:
    queue = open_queue(FileStore(tmp_path))
    claim(queue, frames=4)
    assert queue.status(NAME).state == "running"
    assert (queue.status(NAME, last_dead_attempt=1).state, queue.status(NAME, last_dead_attempt=1).failures) == (
        "queued",
        0,
    )
    claim(queue, frames=4)  # not a frame more
    assert (queue.status(NAME, last_dead_attempt=2).state, queue.status(NAME, last_dead_attempt=2).failures) == (
        "queued",
        1,
    )
    claim(queue, frames=4)
    assert queue.status(NAME, last_dead_attempt=3).state == "failed"
    assert queue.status(NAME, last_dead_attempt=2).state == "running"


def test_a_withdrawn_job_is_left_by_its_process_and_may_be_continued(tmp_path: Path) -> None:
    queue = open_queue(FileStore(tmp_path))
    assert not queue.withdraw(NAME)
    attempt = claim(queue, frames=4)
    assert queue.withdraw(NAME)
    assert queue.is_superseded(NAME, attempt)
    status = queue.status(NAME)
    assert status.attempt is not None
    assert (status.state, status.attempt.state, status.attempt.frames, status.attempt.threads) == (
        "queued",
        "stopped",
        4,
        1,
    )
    assert not queue.withdraw(NAME)


@pytest.mark.parametrize(("device", "nodes", "chosen", "threads"), [
    ("auto", [NODE], "cpu", 4),
    ("auto", [NODE, GPU_NODE], "cuda", 0),
    ("cpu", [NODE, GPU_NODE], "cpu", 12),
    ("cuda", [NODE], "cuda", 0),
    ("cpu", [], "cpu", 1),
])  # fmt: skip
def test_a_gpu_is_taken_if_a_node_has_one(device: str, nodes: list[Resources], chosen: str, threads: int) -> None:
    assert resources.device_on(make_job(device=device), nodes) == chosen
    assert resources.threads_on(chosen, nodes, jobs=2) == threads


def test_jobs_that_share_the_cores_have_one_at_least_and_a_node_at_most() -> None:
    assert resources.threads_on("cpu", [NODE], jobs=40) == 1
    assert resources.threads_on("cpu", [NODE, NODE, NODE], jobs=1) == 8


def test_a_job_asks_for_the_host_memory_of_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []

    def estimate_plan(config: GenerationConfig) -> MemoryPlan:
        plans.append(config.execution.device)
        host = DeviceMemory(HOST, None, {"weights": (GIB, GIB, 2 * GIB, GIB), "frames": (0, 0, GIB, 0)})
        return MemoryPlan(config, (host, DeviceMemory(torch.device("cuda"), None, {"weights": (9 * GIB,) * 4})))

    monkeypatch.setattr(resources.memory_plan, "needs_memory_plan", lambda config: True)
    monkeypatch.setattr(resources.memory_plan, "estimate_plan", estimate_plan)
    planner = Planner()
    cpu = planner.needed_by(make_job(seed=1), "cpu", threads=3)
    gpu = planner.needed_by(make_job(seed=1), "cuda", threads=0)
    assert (cpu.gpus, cpu.cpus, cpu.host_bytes) == (0, 3, 3 * GIB + 1e9)  # of its largest stage, and of the process
    assert (gpu.gpus, gpu.cpus, gpu.host_bytes) == (1, 1, 3 * GIB + 4e9)
    planner.needed_by(make_job(seed=2), "cpu", threads=3)
    assert plans == ["cpu", "cuda"]  # videos that differ in their seeds need the same


@pytest.mark.integration
def test_offloaded_weights_are_kept_on_the_host(folder: Path) -> None:
    def memory(device: str, offload: str = "none") -> float:
        execution = ExecutionConfig(offload=offload)
        job = Job(NAME, "", make_request("a ball", model=str(folder), size=(64, 64), execution=execution))
        return Planner().needed_by(job, device, threads=1).host_bytes

    assert memory("cpu") > 1.25e9
    assert memory("cuda") == 4e9
    assert memory("cuda", offload="model") > 4e9


def test_the_bundled_model_needs_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.memory_plan, "estimate_plan", None)
    needs = Planner().needed_by(make_job(), "cuda", threads=0)
    assert str(needs) == "1 GPU, 1 CPU and 4.0 GB of memory"
    assert needs.fit_in(GPU_NODE)
    assert not needs.fit_in(NODE)


def test_options_that_ray_decides_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.txt").write_text("a red ball")
    words = ("batch", tmp_path / "jobs.txt", "-d", tmp_path / "out", "--engine", "ray")
    code, _, err = pavdm(*words, "--workers", 2)
    assert (code, "--workers cannot be combined with --engine ray" in err) == (2, True)
    monkeypatch.setattr(batch_ray.importlib.util, "find_spec", lambda name: None)
    code, _, err = pavdm(*words)
    assert code == 2
    assert "--engine ray needs ray, which is not installed" in err
    assert 'pip install "ray>=' in err
    assert not (tmp_path / "out").exists()


def test_a_gpu_is_not_needed_where_the_batch_is_started(tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("a red ball")
    words = ("batch", tmp_path / "jobs.txt", "-d", tmp_path / "out", "--plan", "--device", "cuda")
    if importlib.util.find_spec("ray"):
        assert pavdm(*words, "--engine", "ray").code == 0


class Crashed(Exception):
    """As Ray's error of a worker that died."""


@needs_ray
def test_deaths_of_tasks_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pavdm_cli.batch import ray_tasks
    from pavdm_cli.batch.worker import Listener

    failed: list[str] = []
    queue, job = open_queue(FileStore(tmp_path)), make_job()
    tasks = ray_tasks.Tasks(queue, Listener(on_failed=lambda job, attempt: failed.append(attempt.error)))

    def end(error: Exception, last: int) -> JobStatus:
        monkeypatch.setattr(ray_tasks.ray, "get", lambda task: (_ for _ in ()).throw(error))
        ray_tasks._end(tasks, ray_tasks.Submission(job, last), None)
        return tasks.status(job)

    claim(queue, frames=4)
    assert (end(Crashed("gone"), last=0).state, failed) == ("queued", [])  # the next attempt continues after frame 4
    error = Crashed("task")
    error.cause = ModuleNotFoundError("No module named 'pavdm_cli'")  # type: ignore[attr-defined]
    status = end(error, last=1)
    assert (status.state, status.failures) == ("queued", 1)
    assert "No module named 'pavdm_cli'" in failed[-1]
    claim(queue, frames=4)
    assert end(Crashed("the node is low on memory\nmore"), last=2).state == "failed"
    assert failed[-1] == "its process died (the node is low on memory)"


@needs_ray
def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.txt").write_text("a red ball")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for name in batch_ray.ENVIRONMENT:
        monkeypatch.setenv(name, "0")  # to be restored
    code, out, err = pavdm("batch", tmp_path / "jobs.txt", "-d", tmp_path / "out", "--engine", "ray", "--device", "cpu")
    assert (code, out) == (6, ""), err
    assert "error: cannot connect to the Ray cluster at 127.0.0.1:1: " in err
    assert "Traceback" not in err
