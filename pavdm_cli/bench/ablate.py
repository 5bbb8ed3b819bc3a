"""`pavdm bench throughput --ablate`: what every optimisation gives, beside the released code's operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.bench import steps
from pavdm_cli.bench.released import released
from pavdm_cli.bench.shapes import Shape
from pavdm_cli.bench.stats import rounded
from pavdm_cli.bench.synchronize import synchronise
from pavdm_cli.bench.throughput import Row, open_shape, row
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Request
from pavdm_cli.models.execution import REFERENCE, ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.torch_compile import missing_requirement
from pavdm_cli.sampling.cuda_graphs import CudaGraphBackend, GraphBackend, capture_call
from pavdm_cli.sampling.denoiser import Denoiser, batched_cfg

BASELINE, PLAIN = "released operations", "reference"
RUNGS: Mapping[str, Callable[[ExecutionConfig], ExecutionConfig]] = {
    PLAIN: lambda execution: execution,
    "+ modulation table": lambda execution: replace(execution, cache_modulation=True),
    "+ text K/V": lambda execution: replace(execution, cache_text=True),
    "+ fused operations": lambda execution: replace(execution, fused_kernels=True),
    "+ context K/V": lambda execution: replace(execution, context_cache="reuse"),
}
GRAPHS = {"+ graphs": lambda execution: replace(execution, cuda_graphs="on")}
COMPILE = {"+ compile": lambda execution: replace(execution, compile=True)}


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to make a step: the step, and what it needs once a shift."""

    step: partial[Tensor]
    shift: Callable[[], object] | None


def ablate(request: Request, shape: Shape, count: int, watch: Callable[[int], None]) -> Row:
    """Time a steady step of every rung, one after another in every round; one JSON row."""
    config, model = open_shape(request, shape)
    rungs = ladder(config, model)
    seen = deviations(rungs)
    samples: dict[str, list[float]] = {name: [] for name in rungs}
    watch(0)
    for _ in range(count):
        for name, rung in rungs.items():
            samples[name].append(seconds(rung, config.schedule.stride, model.device))
            watch(1)
    found = row("ablate", config, model, {name: rounded(values) for name, values in samples.items()}, {}, shape)
    return found | {"ladder": summary(samples, seen)}


def ladder(config: GenerationConfig, model: ModelRunner) -> dict[str, Rung]:
    """The baseline, then each optimisation on top of those before it, all shown the same window."""
    model = replace(model, spec=replace(model.spec, causal=False))  # every frame sees every frame, as there
    made = steps.ready(config, model)
    text, scale = (
        model.embed(config.formatted_prompt.text, config.guidance_scale != 1, config.formatted_prompt.negative),
        config.guidance_scale,
    )
    rungs = {}
    if base := released(model, text, made.levels):
        rungs[BASELINE] = rung(config, model, base if scale == 1 else batched_cfg(base, scale))
    execution = replace(REFERENCE, device=model.device.type, attention=config.execution.attention)
    for name, with_one_more in rungs_of(config.execution.compile, model.device).items():
        execution = with_one_more(execution)
        one = rung(config, model, bound(config, model, made, execution))
        rungs[name] = recorded(one, CudaGraphBackend(model.device)) if execution.cuda_graphs == "on" else one
    return rungs


def rungs_of(compile: bool, device: torch.device) -> Mapping[str, Callable[[ExecutionConfig], ExecutionConfig]]:
    """What is added to the reference, one after another; compiling where it is on, or on a CPU where it is possible."""
    graphs = GRAPHS if device.type == "cuda" else {}
    compile = compile or (device.type == "cpu" and missing_requirement(device) is None)
    return {**RUNGS, **graphs, **(COMPILE if compile else {})}


def recorded(one: Rung, backend: GraphBackend) -> Rung:
    """The same step replayed, for the window that all rungs are shown."""
    step = capture_call(one.step.func, backend, [one.step.args])
    return replace(one, step=partial(step, *one.step.args))


def bound(config: GenerationConfig, model: ModelRunner, made: steps.Ready, execution: ExecutionConfig) -> Denoiser:
    """The model bound with some optimisations."""
    prompt, scale = config.formatted_prompt, config.guidance_scale
    return model.denoiser(prompt.text, config.schedule, made.levels, scale, execution, negative=prompt.negative)


def rung(config: GenerationConfig, model: ModelRunner, denoiser: Denoiser) -> Rung:
    """A step of a full window on the same random latents for every rung."""
    schedule, generator = config.schedule, torch.Generator().manual_seed(config.seed)
    _, *latent = model.noise_shape()
    z = torch.randn(1, schedule.context + schedule.window, *latent, generator=generator).to(model.device)
    context, window = z[:, : schedule.context], z[:, schedule.context :]
    now = schedule.steps + schedule.stride - 1
    levels = torch.tensor(schedule.levels(schedule.active_chunks(now), now), dtype=torch.int32, device=model.device)
    if not schedule.context:
        return Rung(partial(denoiser, window, levels, None), None)
    cache = denoiser.prefill(context, 0)
    return Rung(partial(denoiser, window, levels, cache), partial(denoiser.prefill, context, 0))


def deviations(rungs: Mapping[str, Rung]) -> dict[str, float]:
    """Largest difference from the reference's output, as a share of its largest value; also the call that warms up."""
    outputs = {name: rung.step() for name, rung in rungs.items()}
    plain = outputs[PLAIN]
    return {name: float((out - plain).abs().max() / plain.abs().max()) for name, out in outputs.items()}


def seconds(rung: Rung, stride: int, device: torch.device) -> float:
    """Of a step, with its share of what is made once a shift."""
    alone = clock(rung.step, device)
    return alone if rung.shift is None else alone + clock(rung.shift, device) / stride


def clock(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    synchronise(device)
    begun = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - begun


def summary(samples: Mapping[str, list[float]], seen: Mapping[str, float]) -> list[Row]:
    """One entry a rung: median, ratio to the baseline round by round, deviation from the reference."""
    base = samples.get(BASELINE) or samples[PLAIN]
    return [
        {
            "rung": name,
            "step_p50_ms": 1e3 * median(values),
            "ratio": median(one / other for one, other in zip(base, values, strict=True)),
            "deviation": seen[name],
        }
        for name, values in samples.items()
    ]


def lines(found: Row) -> list[tuple[str, str, str, str]]:
    """The ladder as people read it."""
    return [
        (one["rung"], f"{one['step_p50_ms']:.1f} ms", f"{one['ratio']:.2f}x", f"{one['deviation']:.1e}")
        for one in found["ladder"]
    ]
