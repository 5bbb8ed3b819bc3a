"""`pavdm bench throughput --ablate`: the speedup of every optimization over the released code's operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from pavdm_cli.bench import steps
from pavdm_cli.bench.architectures import Architecture
from pavdm_cli.bench.released import build_released_denoiser
from pavdm_cli.bench.stats import round_samples
from pavdm_cli.bench.synchronize import time_calls
from pavdm_cli.bench.throughput import Row, open_architecture, row
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
    """One configuration of the ladder: a step, and the prefill that it needs once per shift."""

    step: partial[Tensor]
    shift: Callable[[], object] | None


def ablate(request: Request, architecture: Architecture, count: int, watch: Callable[[int], None]) -> Row:
    """Time a steady step of every rung in each of `count` rounds; one JSON row."""
    config, model = open_architecture(request, architecture)
    rungs = ladder(config, model)
    errors = deviations(rungs)
    samples: dict[str, list[float]] = {name: [] for name in rungs}
    watch(0)
    for _ in range(count):
        for name, rung in rungs.items():
            samples[name].append(seconds(rung, config.schedule.stride, model.device))
            watch(1)
    result = row(
        "ablate", config, model, {name: round_samples(values) for name, values in samples.items()}, {}, architecture
    )
    return result | {"ladder": summary(samples, errors)}


def ladder(config: GenerationConfig, model: ModelRunner) -> dict[str, Rung]:
    """The baseline, then each optimization on top of those before it, all with the same window."""
    model = replace(model, spec=replace(model.spec, causal=False))  # bidirectional, as the released code
    inputs = steps.prepare_sampling(config, model)
    prompt, scale = config.formatted_prompt, config.guidance_scale
    text = model.embed(prompt.text, scale != 1, prompt.negative)
    rungs = {}
    if base := build_released_denoiser(model, text, inputs.levels):
        rungs[BASELINE] = rung(config, model, base if scale == 1 else batched_cfg(base, scale))
    execution = replace(REFERENCE, device=model.device.type, attention=config.execution.attention)
    for name, with_one_more in rungs_of(config.execution.compile, model.device).items():
        execution = with_one_more(execution)
        new_rung = rung(config, model, build_denoiser(config, model, inputs, execution))
        rungs[name] = (
            with_graph(new_rung, CudaGraphBackend(model.device)) if execution.cuda_graphs == "on" else new_rung
        )
    return rungs


def rungs_of(compile: bool, device: torch.device) -> Mapping[str, Callable[[ExecutionConfig], ExecutionConfig]]:
    """The optimizations that are added to the reference; compilation if it is on, or possible on a CPU."""
    graphs = GRAPHS if device.type == "cuda" else {}
    compile = compile or (device.type == "cpu" and missing_requirement(device) is None)
    return {**RUNGS, **graphs, **(COMPILE if compile else {})}


def with_graph(eager_rung: Rung, backend: GraphBackend) -> Rung:
    """The same step, captured as a CUDA graph."""
    step = capture_call(eager_rung.step.func, backend, [eager_rung.step.args])
    return replace(eager_rung, step=partial(step, *eager_rung.step.args))


def build_denoiser(
    config: GenerationConfig, model: ModelRunner, inputs: steps.SamplingInputs, execution: ExecutionConfig
) -> Denoiser:
    """The denoiser with some optimizations."""
    prompt, scale = config.formatted_prompt, config.guidance_scale
    return model.denoiser(prompt.text, config.schedule, inputs.levels, scale, execution, negative=prompt.negative)


def rung(config: GenerationConfig, model: ModelRunner, denoiser: Denoiser) -> Rung:
    """A step of a full window, on the same random latents for every rung."""
    schedule, generator = config.schedule, torch.Generator().manual_seed(config.seed)
    _, *latent = model.noise_shape()
    z = torch.randn(1, schedule.sink_and_context + schedule.window, *latent, generator=generator).to(model.device)
    context, window = z.tensor_split([schedule.sink_and_context], dim=1)
    now = schedule.steps + schedule.stride - 1
    levels = torch.tensor(schedule.levels(schedule.active_chunks(now), now), dtype=torch.int32, device=model.device)
    if not context.shape[1]:
        return Rung(partial(denoiser, window, levels, None), None)
    cache = denoiser.prefill(context, 0)
    return Rung(partial(denoiser, window, levels, cache), partial(denoiser.prefill, context, 0))


def deviations(rungs: Mapping[str, Rung]) -> dict[str, float]:
    """Largest difference from the reference's output, relative to its largest value; also warms up."""
    outputs = {name: rung.step() for name, rung in rungs.items()}
    plain = outputs[PLAIN]
    return {name: float((out - plain).abs().max() / plain.abs().max()) for name, out in outputs.items()}


def seconds(rung: Rung, stride: int, device: torch.device) -> float:
    """Seconds of a step, including its share of the prefill."""
    step = time_calls(rung.step, device)
    return step if rung.shift is None else step + time_calls(rung.shift, device) / stride


def summary(samples: Mapping[str, list[float]], errors: Mapping[str, float]) -> list[Row]:
    """One entry per rung: median, median ratio to the baseline of the same round, deviation from the reference."""
    base = samples.get(BASELINE) or samples[PLAIN]
    return [
        {
            "rung": name,
            "step_p50_ms": 1e3 * median(values),
            "ratio": median(baseline / value for baseline, value in zip(base, values, strict=True)),
            "deviation": errors[name],
        }
        for name, values in samples.items()
    ]


def lines(result: Row) -> list[tuple[str, str, str, str]]:
    """The ladder as a table."""
    return [
        (entry["rung"], f"{entry['step_p50_ms']:.1f} ms", f"{entry['ratio']:.2f}x", f"{entry['deviation']:.1e}")
        for entry in result["ladder"]
    ]
