"""One video in several processes: the same frames as in one, and no process outlives the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import psutil
import pytest
import torch
from support import published
from support.command import pavdm
from support.requests import make_request
from support.tiers import long
from support.wan import write_checkpoint
from torch import Tensor

from pavdm_cli.commands import torchrun
from pavdm_cli.errors import DeviceError, PavdmError, UsageError
from pavdm_cli.generation import memory_plan, pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.processes import configure_processes
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models.parallel import Channel, LostProcessError
from pavdm_cli.models.worker import Worker

pytestmark = pytest.mark.usefixtures("own_cache")
TINY = {"size": (128, 128), "window": 4, "chunk": 2, "steps": 4, "frames": 13, "device": "cpu", "threads": 1}
OPTIONS = ["--size", "128x128", "--window", "4", "--chunk", "2", "--seed", "1", "--threads", "1", "--device", "cpu"]
LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pavdm_cli")


class EndedError(RuntimeError):
    """What a closed connection raises."""


class Pipe:
    """The two ends of a Channel between two threads."""

    def __init__(self) -> None:
        self.queues: tuple[Queue[Any], Queue[Any]] = (Queue(), Queue())  # to rank 1, to rank 0
        self.world_size = 2

    def end(self, rank: int) -> End:
        return End(self, rank)


class End(Channel):
    """As `Channel`, of one rank."""

    def __init__(self, pipe: Pipe, rank: int) -> None:
        self.pipe, self.rank = pipe, rank
        self.methods: list[str] = []

    def broadcast(self, message: Any) -> Any:
        value = self._exchange(message)
        self.methods.append(value.method)
        return value

    def broadcast_tensor(self, tensor: Tensor) -> None:
        tensor.copy_(self._exchange(tensor.clone()))

    def gather(self, error: PavdmError | None) -> list[PavdmError | None]:
        if self.rank:
            self.send(error)
            return []
        return [None, self._get()]

    def send(self, value: Any) -> None:
        self.pipe.queues[self.rank].put(value)

    def receive(self, like: Tensor) -> Any:
        return self._get()

    def _exchange(self, value: Any) -> Any:
        if self.rank:
            return self._get()
        self.send(value)
        return value

    def _get(self) -> Any:
        value = self.pipe.queues[1 - self.rank].get(timeout=60)
        if value is EndedError:
            raise EndedError
        return value


@contextmanager
def worker(monkeypatch: pytest.MonkeyPatch, fail: str = "") -> Iterator[Worker]:
    """A worker in a thread, which the next model that is opened uses; `fail`: a method that raises or ends it."""
    pipe = Pipe()
    served, main = Worker(pipe.end(1), 0), pipe.end(0)  # type: ignore[arg-type]
    monkeypatch.setattr(pipeline, "Channel", lambda rank, world_size: main)
    if fail == "velocity":
        monkeypatch.setattr(served, "velocity", lambda *arguments: 1 / 0, raising=False)

    def serve() -> None:
        with suppress(EndedError):
            while fail != "end" or len(served.channel.methods) < 4:  # type: ignore[attr-defined]
                served.serve_call()
        pipe.queues[1].put(EndedError)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield served
    main.send(EndedError)
    thread.join(30)


def sample(config: GenerationConfig) -> Tensor:
    return torch.cat(list(pipeline.sample_latents(config, pipeline.open_model(config))), dim=1)


def tiny_config(folder: Path, kind: str = "wan", **options: Any) -> GenerationConfig:
    tiny = write_checkpoint(folder / "tiny") if kind == "wan" else published.write(folder / "tiny")
    sizes = TINY if kind == "wan" else TINY | {"size": (64, 64), "window": 5, "chunk": 5, "frames": 34, "fps": 24}
    return resolve(make_request("a kite", **{**sizes, "model": str(tiny), **options}))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("wan", {}),
        ("wan", {"context": 1, "context_cache": "reuse", "solver": "unipc"}),
        pytest.param("opensora", {"context": 1, "context_cache": "reuse"}, marks=pytest.mark.integration),
    ],
)
def test_two_processes_give_the_latents_of_one(kind, options, tmp_path, monkeypatch):
    config = tiny_config(tmp_path, kind, cfg_batching="sequential", **options)
    alone = sample(config)
    with worker(monkeypatch) as other:
        together = sample(configure_processes(config, 2))
        assert torch.equal(together, alone)
        assert other.channel.methods.count("velocity") == config.total_steps
        assert other.runner is not None
        assert not list(other.runner.vae.parameters())  # only rank 0 decodes
    batched = sample(tiny_config(tmp_path / "b", kind, cfg_batching="batched", **options))
    torch.testing.assert_close(together, batched, atol=1e-4, rtol=1e-4)


def test_two_processes_follow_a_prompt_timeline(tmp_path, monkeypatch):
    changes = {"timeline": (PromptChange(0.4, "a boat"),), "blend": 0.2, "frames": 25}
    config = tiny_config(tmp_path, cfg_batching="sequential", **changes)
    alone = sample(config)
    with worker(monkeypatch) as other:
        assert torch.equal(sample(configure_processes(config, 2)), alone)
        assert other.channel.methods.count("text_kv") > 2


def test_results_that_rank_0_drops_are_dropped(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, context=1, context_cache="reuse", frames=49)
    with worker(monkeypatch) as other:
        sample(configure_processes(config, 2))
        assert other.channel.methods.count("prefill") > 4
        assert len(other.values) < 8


def test_an_error_of_a_worker_is_raised_by_rank_0(tmp_path, monkeypatch):
    config = configure_processes(tiny_config(tmp_path), 2)
    with worker(monkeypatch, fail="velocity"), pytest.raises(LostProcessError, match="process 1 failed: ZeroDiv"):
        sample(config)


def test_the_end_of_a_worker_is_raised_by_rank_0(tmp_path, monkeypatch):
    config = configure_processes(tiny_config(tmp_path), 2)
    with worker(monkeypatch, fail="end"), pytest.raises(DeviceError, match="another process of this video has ended"):
        sample(config)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (2, {"guidance": 1.0}, "a single forward pass"),
        (3, {}, "two forward passes"),
        (2, {"cfg_batching": "batched"}, "--cfg-batching batched"),
        (2, {"compile": True}, "--compile"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(count, options, message, tmp_path):
    config = tiny_config(tmp_path, **options)
    assert configure_processes(config, 1) is config
    with pytest.raises(UsageError, match=f"{count} processes cannot make one video .*{message}"):
        configure_processes(config, count)


def test_steps_of_several_processes_are_not_captured(tmp_path):
    config = configure_processes(tiny_config(tmp_path), 2)
    assert "several processes" in config.graph_conflict
    on = replace(tiny_config(tmp_path / "on"), execution=replace(config.execution, processes=1, cuda_graphs="on"))
    with pytest.raises(UsageError, match="--cuda-graphs on"):
        configure_processes(on, 2)


def test_the_plan_counts_other_processes(tmp_path):
    config = tiny_config(tmp_path)
    (alone,), (together,) = (memory_plan.estimate_plan(configure_processes(config, count)).devices for count in (1, 2))
    assert "other processes" not in alone.parts
    parts = ("transformer", "text KV and modulation", "activations of a step", "libraries (estimate)")
    assert together.parts["other processes"][2] == sum(together.parts[name][2] for name in parts)
    text_parts = [plan.parts["text KV and modulation"][2] for plan in (together, alone)]
    assert text_parts[0] < text_parts[1]  # one pass in each process


def test_only_other_ranks_of_one_video_are_workers(monkeypatch):
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert torchrun.is_worker(["pavdm", "--quiet", "generate", "a kite"])
    assert not torchrun.is_worker(["pavdm", "train", "generate"])
    monkeypatch.setenv("RANK", "0")
    assert torchrun.is_one_video(["pavdm", "resume", "a.mp4"])
    assert not torchrun.is_worker(["pavdm", "resume", "a.mp4"])


def launch(*words: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command in two processes."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    command, streams = [*LAUNCH, *map(str, words)], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **streams)  # type: ignore[call-overload]


def rank_of(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    children = psutil.Process(process.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def wait_for_checkpoint(folder: Path) -> None:
    until = time.monotonic() + 300
    while not list(folder.glob("v.partial*.state")):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.integration
def test_torchrun_writes_the_file_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "a kite", "--model", write_checkpoint(tmp_path / "tiny"), *OPTIONS, "--steps", 4]
    process = launch(*words, "--frames", 13, "-o", "v.mp4", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "v.mp4\n"), err
    assert err.count("seed 1") == 1
    assert pavdm(*words, "--frames", 13, "--cfg-batching", "sequential", "-o", "alone.mp4").code == 0
    assert (tmp_path / "v.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], bytes]:
    """The words of a longer video, and its file as one process writes it."""
    folder = tmp_path_factory.mktemp("alone")
    words = ["generate", "a kite", "--model", write_checkpoint(folder / "tiny"), *OPTIONS, "--steps", 6, "--frames", 65]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert pavdm(*words, "--cfg-batching", "sequential", "-o", folder / "v.mp4").code == 0
    return words, (folder / "v.mp4").read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize("victim", [0, *long(1, None)])
def test_one_process_resumes_what_several_began(victim, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = launch(*alone[0], "-o", "v.mp4", cwd=tmp_path)
    wait_for_checkpoint(tmp_path)
    ranks = [rank_of(process, rank) for rank in (0, 1)]
    if victim is None:
        process.send_signal(signal.SIGTERM)
    else:
        ranks[victim].kill()
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert not any(rank.is_running() for rank in ranks)
    if victim == 0:
        assert err.count("error: process 0, which writes the video, has ended") == 1, err
    if victim == 1:  # torchrun's SIGTERM may arrive first, between two calls of the worker
        lines = ("error: another process of this video has ended: kept v.partial", "interrupted: kept v.partial")
        assert [line in err for line in lines].count(True) == 1, err
    if victim is None:
        assert "interrupted: kept v.partial.mp4" in err
    assert pavdm("resume", "v.mp4").code == 0
    assert (tmp_path / "v.mp4").read_bytes() == alone[1]


@pytest.mark.integration
@pytest.mark.parametrize(("more", "code"), [(["--plan"], 0), (["--guidance", "1"], 1)])
def test_commands_that_need_no_worker_end_at_once(more, code, tmp_path):
    words = ["generate", "a kite", "--model", write_checkpoint(tmp_path / "tiny"), *OPTIONS, "--frames", 13]
    process = launch(*words, *more, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err.count("error: 2 processes cannot make one video whose steps are a single forward pass") == code
