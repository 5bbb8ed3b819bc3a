"""`pavdm bench throughput`: frames a second, and what they are a share of."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pavdm_cli import pipeline, record
from pavdm_cli.bench.ceilings import matrix_rate, synchronise, work
from pavdm_cli.bench.env import environment, peak_memory
from pavdm_cli.bench.overlap import deviations, in_question
from pavdm_cli.denoiser import Denoiser
from pavdm_cli.errors import PavdmError
from pavdm_cli.graphs import Graphs
from pavdm_cli.models.load import Loaded
from pavdm_cli.noise import seeded_noise
from pavdm_cli.pipeline import Job
from pavdm_cli.request import Output, Request
from pavdm_cli.sampler import State, sample, walk

SCHEMA = "pavdm.bench/1"


@dataclass(frozen=True, slots=True)
class Timed:
    """When each step ended, from the start of the run, and which were in the steady state."""

    ends: list[float]  # seconds
    steady: list[bool]

    def steps(self) -> list[float]:
        """Durations of the steady steps."""
        starts = [0.0, *self.ends[:-1]]
        return [end - start for start, end, full in zip(starts, self.ends, self.steady, strict=True) if full]


def throughput(request: Request, watch: Callable[[int], None]) -> dict[str, Any]:
    """Measure a request: cold start, denoising alone, end to end; one JSON row."""
    job = pipeline.plan(request)
    cold = cold_start(request)
    begun = time.perf_counter()
    model = pipeline.open_model(job)
    next(pipeline.frames(job, model))
    warm = time.perf_counter() - begun
    ceiling = matrix_rate(model.device)
    graphs = pipeline.graphs_of(job, model)
    timed = denoise(job, model, graphs)
    whole = end_to_end(job, model, watch)
    return {
        "schema": SCHEMA,
        "kind": "throughput",
        "env": environment(),
        "ceilings": {"matrix_tflops": ceiling},
        "config": config(job),
        "attention": {"name": model.attention.name, "reason": model.attention.reason},
        "engine": asdict(job.sampling.engine),
        "overlap_kv_deviation": deviations(job, model) if in_question(job) else None,
        "samples": {"steady_steps_s": [round(step, 5) for step in timed.steps()], "end_to_end_s": whole},
        "summary": summary(job, timed, whole, step_work(job, model), ceiling)
        | {"first_frame_cold_s": cold, "first_frame_warm_s": warm, "peak_memory_mb": peak_memory()}
        | {"graphs": graphs.count if graphs else 0, "graph_memory_mb": graphs.bytes / 2**20 if graphs else 0.0},
    }


def config(job: Job) -> dict[str, Any]:
    """Everything that two rows must share to be compared."""
    return {
        "model": job.spec.name,
        "size": job.spec.size,
        "prompt": job.prompt,
        "seed": job.sampling.seed,
        "frames": job.frames,
        "device": job.sampling.device,
        **asdict(job.settings),
    }


def summary(job: Job, timed: Timed, whole: float, tflop: float, ceiling: float) -> dict[str, float]:
    """The figures people compare."""
    steps = timed.steps()
    typical = median(steps)
    return {
        "steady_fps": float(job.frames_per_chunk) / (typical * job.schedule.stride),
        "end_to_end_fps": job.frames / whole,
        "real_time_factor": job.frames / job.spec.fps / whole,
        "step_p50_ms": 1e3 * typical,
        "step_p99_ms": 1e3 * sorted(steps)[int(0.99 * (len(steps) - 1))],
        "step_tflop": tflop,
        "matrix_share": tflop / typical / ceiling,
    }


def cold_start(request: Request) -> float:
    """Seconds from starting a new process to its first frame."""
    sampling = request.sampling
    words = (request.prompt, str(sampling.seed), sampling.device, str(sampling.threads))
    engine = json.dumps(asdict(sampling.engine))
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pavdm_cli.bench.first", *words, engine], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise PavdmError("a new process made no frame", (done.stderr.splitlines() or ["it said nothing"])[-1])
    return time.perf_counter() - begun


def denoise(job: Job, model: Loaded, graphs: Graphs | None = None) -> Timed:
    """Sample without decoding, and note when every step ends."""
    sigmas, noise, denoiser = _ready(job, model)
    ends, steady, begun = [], [], time.perf_counter()
    for state in walk(job.schedule, denoiser, noise, sigmas, chunks=job.chunks, graphs=graphs):
        synchronise(model.device)
        ends.append(time.perf_counter() - begun)
        steady.append(_is_steady(job, state))
    return Timed(ends, steady if any(steady) else [True] * len(ends))


def end_to_end(job: Job, model: Loaded, watch: Callable[[int], None]) -> float:
    """Seconds to sample, decode, encode and close a file."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        record.record(job, model, Output(Path(folder) / "video.mp4"), record.Watch(watch, lambda: False))
        return time.perf_counter() - begun


def step_work(job: Job, model: Loaded) -> float:
    """TFLOP of a steady step, the overlap's share included."""
    sigmas, noise, denoiser = _ready(job, model)
    chunks = 2 * job.schedule.capacity
    with_one_more = work(lambda: list(sample(job.schedule, denoiser, noise, sigmas, chunks=chunks + 1)))
    without = work(lambda: list(sample(job.schedule, denoiser, noise, sigmas, chunks=chunks)))
    return (with_one_more - without) / job.schedule.stride


def _ready(job: Job, model: Loaded) -> tuple[Tensor, Callable[..., Tensor], Denoiser]:
    sigmas = pipeline.sigmas_of(job).to(model.device)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    return sigmas, noise, model.bind(job.prompt, job.schedule, sigmas, job.settings.guidance, job.sampling.engine)


def _is_steady(job: Job, state: State) -> bool:
    """Whether the window was full and had an overlap."""
    return len(state.chunks) == job.schedule.capacity and (state.overlap.shape[1] > 0 or job.schedule.overlap == 0)


def lines(row: dict[str, Any]) -> list[tuple[str, str]]:
    """A row as people read it."""
    found, ceiling = row["summary"], row["ceilings"]["matrix_tflops"]
    memory, off = found["peak_memory_mb"], row["overlap_kv_deviation"]
    return [
        ("steady, denoising alone", f"{found['steady_fps']:.1f} frames/s"),
        (
            "end to end, to a file",
            f"{found['end_to_end_fps']:.1f} frames/s, {found['real_time_factor']:.1f}x real time",
        ),
        ("attention", "{name}: {reason}".format(**row["attention"])),
        *([("off by reuse, chunk after chunk", ", ".join(f"{share:.2g}" for share in off))] if off else []),
        ("first frame, new process", f"{found['first_frame_cold_s']:.2f} s"),
        ("first frame, torch imported", f"{found['first_frame_warm_s']:.2f} s"),
        ("step", f"p50 {found['step_p50_ms']:.1f} ms, p99 {found['step_p99_ms']:.1f} ms"),
        (
            "work",
            f"{1e3 * found['step_tflop']:.2f} GFLOP a step, {found['matrix_share']:.0%} of the matrix-product rate",
        ),
        ("matrix-product rate, this run", f"{ceiling:.3f} TFLOP/s, float32, {torch.get_num_threads()} threads"),
        ("CUDA graphs", f"{found['graphs']}, {found['graph_memory_mb']:.0f} MB"),
        ("peak memory", "unknown here" if memory is None else f"{memory:.0f} MB"),
    ]
