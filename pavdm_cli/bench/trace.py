"""`pavdm bench throughput --profile`: where a step's time goes, and how long asking for it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pavdm_cli.bench import steps
from pavdm_cli.bench.shapes import RandomTokens, Shape
from pavdm_cli.bench.stats import rounded
from pavdm_cli.bench.throughput import open_shape, row
from pavdm_cli.errors import OutputError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig, resolve
from pavdm_cli.generation.request import Request
from pavdm_cli.models.runner import ModelRunner

DEAREST = 10
Row = dict[str, Any]


def trace(request: Request, shape: Shape | None, folder: Path) -> tuple[Row, Path]:
    """Profile the steps of a shift; one JSON row, and `trace.json` for chrome://tracing or Perfetto.

    Raises: OutputError.
    """
    config, model = opened(request, shape)
    made = steps.ready(config, model)
    alone = [step.seconds for step in steps.steady(config, model, made, 3 * config.schedule.stride)]
    with profile(activities=activities(model.device), acc_events=True) as seen:  # else torch 2.11 warns of cycles
        steps.steady(config, model, made, config.schedule.stride)
    asked = issuing(as_recorded(config, made), model)
    figures = {
        "step_ms": 1e3 * median(alone),
        "issuing_ms": 1e3 * median(asked),
        "issuing_share": median(asked) / median(alone),
    }
    samples = {"steady_steps_s": rounded(alone), "issuing_s": rounded(asked)}
    found = row("profile", config, model, samples, figures, shape)
    return found | {"operations": dearest(seen.key_averages(), model.device)}, export(seen, folder)


def opened(request: Request, shape: Shape | None) -> tuple[GenerationConfig, ModelRunner]:
    """A configuration and its model: a shape with random weights, or the request's own."""
    if shape:
        return open_shape(request, shape)
    config = resolve(request)
    return config, pipeline.open_model(config)


def activities(device: torch.device) -> list[ProfilerActivity]:
    """What to record on a device."""
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])


def export(seen: Any, folder: Path) -> Path:
    """Write the trace. Raises: OutputError."""
    path = folder / "trace.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")  # the profiler itself only logs that it could not
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another folder") from None
    seen.export_chrome_trace(str(path))
    return path


def dearest(events: Iterable[Any], device: torch.device) -> list[Row]:
    """What took most time of its own, with its share of all: operations, on a GPU the kernels that ran there.

    The operations that launched them carry the same time once more.
    """
    clock = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    seen = [event for event in events if device.type != "cuda" or is_kernel(event)]
    spent = {event.key: (getattr(event, clock), event.count) for event in seen}
    whole = sum(seconds for seconds, _ in spent.values()) or 1.0
    first = sorted(spent, key=lambda name: -spent[name][0])[:DEAREST]
    return [
        {"name": n, "self_ms": spent[n][0] / 1e3, "share": spent[n][0] / whole, "calls": spent[n][1]} for n in first
    ]


def is_kernel(event: Any) -> bool:
    """Whether an event of a profile was on the GPU itself, and no mark somebody set."""
    return bool(event.device_type.name != "CPU" and not event.is_user_annotation)


def as_recorded(config: GenerationConfig, made: steps.Ready) -> GenerationConfig:
    """The same with CUDA graphs on where the full window was captured, and off where it was not.

    What decides by the size of a network would decide otherwise for one that is narrower.
    """
    recorded = made.graphs is not None and config.schedule.window + config.schedule.context <= made.graphs.max_latents
    return config.with_execution(cuda_graphs="on" if recorded else "off")


def issuing(config: GenerationConfig, model: ModelRunner) -> list[float]:
    """Seconds of Python and dispatch in steps: the same calls of a network as deep, but 8 wide, with a token a frame.

    An upper bound: what little that network computes is in it. Graphs are as `as_recorded` decides.
    """
    loaded, size = model.model.narrow()
    spec = replace(config.spec, size=size)
    narrow = replace(model, spec=spec, model=loaded, text_encoder=RandomTokens(1, loaded.text_shape[1]))
    asked = replace(config, spec=spec)
    return [s.seconds for s in steps.steady(asked, narrow, steps.ready(asked, narrow), 3 * config.schedule.stride)]


def lines(found: Row) -> list[tuple[str, str, str, str]]:
    """The dearest operations as people read them."""
    shown = found["operations"]
    return [(one["name"], f"{one['self_ms']:.2f} ms", f"{one['share']:.1%}", str(one["calls"])) for one in shown]
