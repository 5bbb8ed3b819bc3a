"""`pavdm bench latency`: what a person waits for, several times over."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av

from pavdm_cli.bench import steps
from pavdm_cli.bench.first_frame import cold, warm
from pavdm_cli.bench.shapes import Shape
from pavdm_cli.bench.stats import percentile, rounded
from pavdm_cli.bench.throughput import Row, open_shape, row
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.pipeline import Job
from pavdm_cli.generation.request import Request
from pavdm_cli.models.execution import CONTEXT_CACHE
from pavdm_cli.models.runner import ModelRunner

LOOK_EVERY = 0.02  # seconds
Waits = dict[str, list[float]]


class File(NamedTuple):
    """Seconds from starting `pavdm generate` in a new process to what is on the disk."""

    playable: float  # a frame can be decoded from the growing file
    whole: float  # closed, under its name


def latency(request: Request, repeats: int, watch: Callable[[int], None], shape: Shape | None = None) -> Row:
    """Measure each wait `repeats` times: first frame, chunks, a playable and a whole file; one JSON row.

    shape: with random weights, what one process can tell.
    """
    samples: dict[str, list[float]] = {f"{name}_s": [] for name in WAITS}
    for _ in range(repeats):
        job, model, found = of_shape(request, shape) if shape else of_video(request)
        for name, values in found.items():
            samples[f"{name}_s"] += rounded(values)
        watch(1)
    return row("latency", job, model, samples, figures(samples), shape)


def of_video(request: Request) -> tuple[Job, ModelRunner, Waits]:
    """Each wait for a video."""
    job = pipeline.plan(request)
    seconds, model = warm(request)
    found = {"first_frame_cold": [cold(request)], "first_frame_warm": [seconds], **chunks(job, model)}
    file = to_file(request)
    return job, model, found | {"playable_file": [file.playable], "whole_file": [file.whole]}


def of_shape(request: Request, shape: Shape) -> tuple[Job, ModelRunner, Waits]:
    """The waits within a process, random weights made up first instead of being read."""
    begun = time.perf_counter()
    job, model = open_shape(request, shape, whole=True)
    next(pipeline.frames(job, model))
    return job, model, {"first_frame_warm": [time.perf_counter() - begun], **chunks(job, model)}


WAITS = {
    "first_frame_cold": "first frame, new process",
    "first_frame_warm": "first frame, torch imported",
    "growth_chunk": "each chunk while the window fills, denoising alone",
    "steady_chunk": "each chunk of frames after that",
    "playable_file": "a file that plays, new process",
    "whole_file": "the whole file, new process",
}


def figures(samples: Row) -> Row:
    """Median and 99th percentile of every wait that was measured."""
    known = {name: values for name, values in samples.items() if values}
    medians = {f"{name.removesuffix('_s')}_p50_s": median(values) for name, values in known.items()}
    return medians | {f"{name.removesuffix('_s')}_p99_s": percentile(values, 0.99) for name, values in known.items()}


def chunks(job: Job, model: ModelRunner) -> Waits:
    """How long a video waits for each chunk: as they enter while the window fills, as frames once it is full."""
    growth = steps.seconds_of(steps.whole(job, model, steps.ready(job, model)), "growth")
    stride = job.schedule.stride
    entering = [sum(growth[at : at + stride]) for at in range(0, len(growth) - stride + 1, stride)]
    return {"growth_chunk": entering, "steady_chunk": arrivals(job, model)}


def arrivals(job: Job, model: ModelRunner) -> list[float]:
    """Seconds between chunks of frames, till no new chunk enters the window."""
    found: list[float] = []
    last = None
    for _ in pipeline.frames(job, model):
        now = time.perf_counter()
        found += [] if last is None else [now - last]
        last = now
    return found[: max(0, job.chunks - job.schedule.capacity)]


def to_file(request: Request) -> File:
    """Run `pavdm generate` and look at its file until it plays, and until it is whole. Raises: PavdmError."""
    with tempfile.TemporaryDirectory() as folder:
        path, begun = Path(folder) / "video.mp4", time.perf_counter()
        playable = None
        with subprocess.Popen(
            command(request, path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None:
                if playable is None and plays(path.with_name("video.partial.mp4")):
                    playable = time.perf_counter() - begun
                time.sleep(LOOK_EVERY)
            whole = time.perf_counter() - begun
            said = process.stderr.read().splitlines() if process.stderr else []
        if process.returncode or not plays(path):
            raise PavdmError("a new process made no file", (said or ["it said nothing"])[-1])
        return File(whole if playable is None else playable, whole)


def command(request: Request, path: Path) -> Sequence[str]:
    """The same video by `pavdm generate`."""
    sampling = request.sampling
    given = {"steps": sampling.steps, "window": sampling.window, "chunk": sampling.chunk, "guidance": sampling.guidance}
    words = [request.prompt, "--frames", request.count, "--output", path, "--seed", sampling.seed]
    words += ["--model", sampling.model, "--method", sampling.method, "--device", sampling.device]
    words += ["--threads", sampling.threads, "--attention", sampling.engine.attention]
    words += ["--precision", sampling.precision]
    words += [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    words += [] if sampling.context is None else ["--context", sampling.context]
    words += [] if sampling.warmup is None else ["--warmup", sampling.warmup]
    kept = sampling.engine.reuse_context
    words += ["--cuda-graphs", sampling.engine.cuda_graphs, "--overlap-decode", sampling.engine.overlap_decode]
    words += [] if kept is None else ["--context-cache", CONTEXT_CACHE[kept]]
    return [sys.executable, "-m", "pavdm_cli", "generate", *map(str, words), *["--compile"] * sampling.engine.compile]


def plays(path: Path) -> bool:
    """Whether a frame can be decoded from the file as it is now."""
    if not path.exists():
        return False
    try:
        with av.open(str(path)) as file:
            return next(file.decode(video=0), None) is not None
    except (av.FFmpegError, OSError):
        return False
