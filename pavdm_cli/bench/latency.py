"""`pavdm bench latency`: the times that users wait for, measured repeatedly."""

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
from pavdm_cli.bench.architectures import Architecture
from pavdm_cli.bench.first_frame import cold, warm
from pavdm_cli.bench.stats import percentile, round_samples
from pavdm_cli.bench.throughput import Row, open_architecture, row
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Request, flat_values
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.runner import ModelRunner

LOOK_EVERY = 0.02  # seconds
Waits = dict[str, list[float]]


class File(NamedTuple):
    """Seconds from starting `pavdm generate` in a new process to what is on the disk."""

    playable: float  # a frame can be decoded from the growing file
    complete: float  # closed, under its name


def latency(
    request: Request, repeats: int, watch: Callable[[int], None], architecture: Architecture | None = None
) -> Row:
    """Measure each wait `repeats` times: first frame, chunks, a playable and a complete file; one JSON row.

    architecture: with random weights, what one process can tell.
    """
    samples: dict[str, list[float]] = {f"{name}_s": [] for name in WAITS}
    for _ in range(repeats):
        config, model, waits = of_architecture(request, architecture) if architecture else of_video(request)
        for name, values in waits.items():
            samples[f"{name}_s"] += round_samples(values)
        watch(1)
    return row("latency", config, model, samples, figures(samples), architecture)


def of_video(request: Request) -> tuple[GenerationConfig, ModelRunner, Waits]:
    """Each wait for a video."""
    config = resolve(request)
    seconds, model = warm(request)
    waits = {"first_frame_cold": [cold(request)], "first_frame_warm": [seconds], **chunks(config, model)}
    file = to_file(request)
    return config, model, waits | {"playable_file": [file.playable], "whole_file": [file.complete]}


def of_architecture(request: Request, architecture: Architecture) -> tuple[GenerationConfig, ModelRunner, Waits]:
    """The waits within this process, with random weights."""
    start = time.perf_counter()
    config, model = open_architecture(request, architecture, with_vae=True)
    next(pipeline.generate_frames(config, model))
    return config, model, {"first_frame_warm": [time.perf_counter() - start], **chunks(config, model)}


WAITS = {
    "first_frame_cold": "time to first frame, cold",
    "first_frame_warm": "time to first frame, warm",
    "growth_chunk": "each chunk while the window fills, denoising alone",
    "steady_chunk": "each chunk of frames after that",
    "playable_file": "a file that plays, new process",
    "whole_file": "the complete file, new process",
}


def figures(samples: Row) -> Row:
    """Median and 99th percentile of every wait that was measured."""
    nonempty = {name: values for name, values in samples.items() if values}
    medians = {f"{name.removesuffix('_s')}_p50_s": median(values) for name, values in nonempty.items()}
    return medians | {f"{name.removesuffix('_s')}_p99_s": percentile(values, 0.99) for name, values in nonempty.items()}


def chunks(config: GenerationConfig, model: ModelRunner) -> Waits:
    """Seconds per chunk: denoising while the window fills, frames once it is full."""
    growth = steps.seconds_of(steps.time_all_steps(config, model, steps.prepare_sampling(config, model)), "growth")
    stride = config.schedule.stride
    growth_chunks = [sum(growth[at : at + stride]) for at in range(0, len(growth) - stride + 1, stride)]
    return {"growth_chunk": growth_chunks, "steady_chunk": arrivals(config, model)}


def arrivals(config: GenerationConfig, model: ModelRunner) -> list[float]:
    """Seconds between chunks of frames, until no new chunk enters the window."""
    intervals: list[float] = []
    last = None
    for _ in pipeline.generate_frames(config, model):
        now = time.perf_counter()
        intervals += [] if last is None else [now - last]
        last = now
    return intervals[: max(0, config.chunks - config.schedule.capacity)]


def to_file(request: Request) -> File:
    """Run `pavdm generate` and poll its file until it is playable, and until it is complete. Raises: PavdmError."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "video.mp4", time.perf_counter()
        playable = None
        with subprocess.Popen(
            command(request, path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None:
                if playable is None and plays(path.with_name("video.partial.mp4")):
                    playable = time.perf_counter() - start
                time.sleep(LOOK_EVERY)
            total = time.perf_counter() - start
            messages = process.stderr.read().splitlines() if process.stderr else []
        if process.returncode or not plays(path):
            raise PavdmError("a new process wrote no file", (messages or ["no message"])[-1])
        return File(total if playable is None else playable, total)


def command(request: Request, path: Path) -> Sequence[str]:
    """The command for the same video."""
    values, defaults = flat_values(request), flat_values(Request(request.prompt))
    options = {name: value for name, value in values.items() if value != defaults.get(name)}
    options |= {"frames": request.frame_count, "seed": request.seed, "output": path}
    words = [request.prompt]
    for name, value in options.items():
        if name != "seconds":
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return [sys.executable, "-m", "pavdm_cli", "generate", *words]


def plays(path: Path) -> bool:
    """Whether a frame can be decoded from the file as it is now."""
    if not path.exists():
        return False
    try:
        with av.open(str(path)) as file:
            return next(file.decode(video=0), None) is not None
    except (av.FFmpegError, OSError):
        return False
