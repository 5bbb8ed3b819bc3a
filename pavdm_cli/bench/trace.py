"""`pavdm bench throughput --profile`: time of a step by operation, and host overhead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pavdm_cli.bench import steps
from pavdm_cli.bench.architectures import Architecture, RandomTokens
from pavdm_cli.bench.stats import round_samples
from pavdm_cli.bench.throughput import open_architecture, row
from pavdm_cli.errors import OutputError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.runner import ModelRunner

TOP_OPERATIONS = 10
Row = dict[str, Any]


def trace(request: Request, architecture: Architecture | None, folder: Path) -> tuple[Row, Path]:
    """Profile the steps of a shift; one JSON row, and `trace.json` for chrome://tracing or Perfetto.

    Raises: OutputError.
    """
    config, model = open_configured(request, architecture)
    inputs = steps.prepare_sampling(config, model)
    alone = [step.seconds for step in steps.steady(config, model, inputs, 3 * config.schedule.stride)]
    with profile(activities=activities(model.device), acc_events=True) as profiler:  # else torch 2.11 warns of cycles
        steps.steady(config, model, inputs, config.schedule.stride)
    overhead = host_overhead(with_same_graphs(config, inputs), model)
    figures = {
        "step_ms": 1e3 * median(alone),
        "issuing_ms": 1e3 * median(overhead),
        "issuing_share": median(overhead) / median(alone),
    }
    samples = {"steady_steps_s": round_samples(alone), "issuing_s": round_samples(overhead)}
    result = row("profile", config, model, samples, figures, architecture)
    return result | {"operations": most_expensive(profiler.key_averages(), model.device)}, export(profiler, folder)


def open_configured(request: Request, architecture: Architecture | None) -> tuple[GenerationConfig, ModelRunner]:
    """A configuration and its model: an architecture with random weights, or the request's own."""
    if architecture:
        return open_architecture(request, architecture)
    config = resolve(request)
    return config, pipeline.open_model(config)


def activities(device: torch.device) -> list[ProfilerActivity]:
    """What to record on a device."""
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])


def export(profiler: Any, folder: Path) -> Path:
    """Write the trace. Raises: OutputError."""
    path = folder / "trace.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")  # the profiler itself only logs that it could not
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another folder") from None
    profiler.export_chrome_trace(str(path))
    return path


def most_expensive(events: Iterable[Any], device: torch.device) -> list[Row]:
    """The operations with the largest self time, and their shares; on a GPU the kernels.

    The operations that launch kernels include the same time again.
    """
    clock = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    relevant = [event for event in events if device.type != "cuda" or is_kernel(event)]
    self_times = {event.key: (getattr(event, clock), event.count) for event in relevant}
    total = sum(seconds for seconds, _ in self_times.values()) or 1.0
    first = sorted(self_times, key=lambda name: -self_times[name][0])[:TOP_OPERATIONS]
    return [
        {"name": n, "self_ms": self_times[n][0] / 1e3, "share": self_times[n][0] / total, "calls": self_times[n][1]}
        for n in first
    ]


def is_kernel(event: Any) -> bool:
    """Whether an event of a profile is a kernel on the GPU, not a user annotation."""
    return bool(event.device_type.name != "CPU" and not event.is_user_annotation)


def with_same_graphs(config: GenerationConfig, inputs: steps.SamplingInputs) -> GenerationConfig:
    """The same with CUDA graphs on or off, as they were for the full window.

    `auto` depends on the width of the network, and would decide otherwise for a narrower one.
    """
    has_graphs = (
        inputs.graph_capturer is not None
        and config.schedule.window + config.schedule.sink_and_context <= inputs.graph_capturer.max_latents
    )
    return config.with_execution(cuda_graphs="on" if has_graphs else "off")


def host_overhead(config: GenerationConfig, model: ModelRunner) -> list[float]:
    """Seconds of Python and dispatch in steps: a network of the same depth, 8 channels and one token per frame.

    An upper bound, since it includes the little that this network computes.
    """
    small_model, size = model.model.shrink()
    spec = replace(config.spec, size=size)
    narrow = replace(model, spec=spec, model=small_model, text_encoder=RandomTokens(1, small_model.text_shape[1]))
    small = replace(config, spec=spec)
    return [
        step.seconds
        for step in steps.steady(small, narrow, steps.prepare_sampling(small, narrow), 3 * config.schedule.stride)
    ]


def lines(result: Row) -> list[tuple[str, str, str, str]]:
    """The most expensive operations as a table."""
    operations = result["operations"]
    return [
        (operation["name"], f"{operation['self_ms']:.2f} ms", f"{operation['share']:.1%}", str(operation["calls"]))
        for operation in operations
    ]
