"""`pavdm bench throughput`: frames per second, time by stage, and utilization of the hardware."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pavdm_cli.bench import env, steps
from pavdm_cli.bench.architectures import PROMPT, Architecture, random_model
from pavdm_cli.bench.ceilings import ceilings
from pavdm_cli.bench.context_reuse import deviations, is_approximate
from pavdm_cli.bench.first_frame import cold, warm
from pavdm_cli.bench.stages import stages
from pavdm_cli.bench.stats import round_samples, times
from pavdm_cli.bench.steps import PHASES, SamplingInputs, Step
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import write
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.devices import set_threads
from pavdm_cli.models.runner import ModelRunner, with_attention
from pavdm_cli.models.torch_compile import check_compile, compile_stats
from pavdm_cli.runtime.untrusted import stored_values
from pavdm_cli.sampling.cuda_graphs import require_cuda_for_graphs

SCHEMA = "pavdm.bench/1"
Row = dict[str, Any]


def throughput(request: Request, watch: Callable[[int], None]) -> Row:
    """Measure a request: first frame, denoising alone, stage by stage, and end to end; one JSON row."""
    config = resolve(request)
    first_cold = cold(request)
    first_warm, model = warm(request)
    env.reset_peak_memory(model.device)
    inputs = steps.prepare_sampling(config, model)
    step_times = steps.time_all_steps(config, model, inputs)
    firsts = {"first_frame_cold_s": first_cold, "first_frame_warm_s": first_warm}
    video_samples, figures = whole_video(config, model, watch)
    figures |= denoising(config, model, step_times) | firsts | graphs(inputs)
    samples = (
        raw_samples(step_times) | video_samples | {name: round_samples([seconds]) for name, seconds in firsts.items()}
    )
    result = row("throughput", config, model, samples, figures)
    return result | {"context_cache_deviation": deviations(config, model) if is_approximate(config) else None}


def architecture_throughput(
    request: Request, architecture: Architecture, count: int, watch: Callable[[int], None] | None = None
) -> Row:
    """The same of a network with random weights: so many steps of a full window; with `watch` a whole video too.

    Raises: UsageError as `open_architecture`.
    """
    config, model = open_architecture(request, architecture, with_vae=watch is not None)
    inputs = steps.prepare_sampling(config, model)
    step_times = steps.steady(config, model, inputs, count)
    if watch:
        steps.warm_up(config, inputs)
    video_samples, figures = whole_video(config, model, watch) if watch else ({}, {})
    figures |= denoising(config, model, step_times) | graphs(inputs)
    return row("throughput", config, model, raw_samples(step_times) | video_samples, figures, architecture)


def whole_video(config: GenerationConfig, model: ModelRunner, watch: Callable[[int], None]) -> tuple[Row, Row]:
    """Samples and figures of the video, generated stage by stage, and then end to end."""
    stage_seconds = {f"{name}_s": seconds for name, seconds in stages(config, model).items()}
    seconds = end_to_end(config, model, watch)
    samples = {name: [seconds] for name, seconds in stage_seconds.items()}
    rates = {"end_to_end_fps": config.frames / seconds, "real_time_factor": config.frames / config.spec.fps / seconds}
    return {"end_to_end_s": [seconds], **samples}, rates | stage_seconds


def open_architecture(
    request: Request, architecture: Architecture, with_vae: bool = False
) -> tuple[GenerationConfig, ModelRunner]:
    """The configuration that an architecture stands for, and its network with random weights; with_vae: for a video.

    Raises: UsageError for a video of an architecture without a VAE.
    """
    if with_vae and not architecture.has_vae:
        raise UsageError(
            f"the architecture {architecture.spec.name!r} has no VAE, so it cannot generate a video",
            "use the architecture of a complete model",
        )
    config = replace(resolve(replace(request, prompt=PROMPT)), spec=architecture.spec)
    set_threads(config.execution.threads)
    device = config.device
    require_cuda_for_graphs(config.execution.cuda_graphs, device)
    check_compile(config.execution.compile, device)
    precision = config.execution.precision
    model = random_model(
        architecture, device, with_vae, precision if precision in architecture.spec.precisions_on(device.type) else ""
    )
    return config, with_attention(model, config.execution.attention)


def raw_samples(step_times: list[Step]) -> dict[str, list[float]]:
    """Raw samples: every step by its phase, and the time per chunk."""
    by_phase = {f"{name}_steps_s": round_samples(steps.seconds_of(step_times, name)) for name in PHASES}
    return {**by_phase, "steady_chunks_s": round_samples(steps.chunk_seconds(step_times))}


def denoising(config: GenerationConfig, model: ModelRunner, step_times: list[Step]) -> Row:
    """Figures of denoising alone."""
    typical = steps.typical(step_times)
    return {
        "steady_fps": float(config.frames_per_chunk) / (median(typical) * config.schedule.stride),
        **times("step", typical),
        **times("chunk", steps.chunk_seconds(step_times)),
        **{f"{name}_s": sum(steps.seconds_of(step_times, name)) for name in PHASES},
        "step_tflop": steps.step_tflop(config, model),
        "step_tflops": steps.step_tflop(config, model) / median(typical),
    }


def graphs(inputs: SamplingInputs) -> Row:
    """Number of captured CUDA graphs, seconds to capture them, and their memory."""
    capturer = inputs.graph_capturer
    if not capturer:
        return {"graphs": 0, "capture_s": 0.0, "graph_memory_mb": 0.0}
    return {"graphs": capturer.count, "capture_s": capturer.seconds, "graph_memory_mb": capturer.bytes / 2**20}


def row(
    kind: str,
    config: GenerationConfig,
    model: ModelRunner,
    samples: Row,
    figures: Row,
    architecture: Architecture | None = None,
) -> Row:
    """One row of results: where, against what, how, raw samples and figures."""
    peaks = env.peak_memory(model.device)
    ceiling = ceilings(model.device, model.model.matmul_dtype)
    share = {"matrix_share": figures["step_tflops"] / ceiling["matrix_tflops"]} if figures.get("step_tflops") else {}
    return {
        "schema": SCHEMA,
        "kind": kind,
        "env": env.environment(),
        "ceilings": ceiling,
        "config": settings_of(config, model, architecture)
        | {"frames": None if architecture and "write_s" not in figures else config.frames},
        "attention": {"name": model.attention.name, "reason": model.attention.reason},
        "compiled": compile_stats(),
        "samples": samples,
        "summary": {**figures, **share, **peaks},
    }


def settings_of(config: GenerationConfig, model: ModelRunner, architecture: Architecture | None = None) -> Row:
    """What two rows must share to be compared: the values in use, not those requested."""
    return {
        "model": config.spec.name,
        "random_weights": architecture is not None,
        "size": list(config.spec.size),
        "prompt": config.prompt if architecture is None else f"{architecture.tokens} random tokens",
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "attention": model.attention.name,
        "weights": model.digest,
        "one_pass_guidance": config.spec.distilled_guidance,
        **stored_values(config),
        "execution": asdict(config.execution),
    }


def end_to_end(config: GenerationConfig, model: ModelRunner, watch: Callable[[int], None]) -> float:
    """Seconds to sample, decode, encode and close a file."""
    with tempfile.TemporaryDirectory() as folder:
        watch(0)
        start = time.perf_counter()
        write.write_video(config, model, Output(Path(folder) / "video.mp4"), write.RunControl(watch, lambda: False))
        return time.perf_counter() - start
