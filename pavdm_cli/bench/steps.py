"""Steps of a video timed one by one: which phase each was in, and when chunks were finished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import NamedTuple

import torch

from pavdm_cli.bench.synchronize import synchronise
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphPolicy
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import (
    SamplerState,
    denoise,
    denoise_step,
    from_nothing,
    from_renoised,
    sample_noise,
    warmup_inputs,
)
from pavdm_cli.sampling.noise import Noise, NoiseLevels, seeded_noise
from pavdm_cli.sampling.solver import Solver
from pavdm_cli.sampling.solvers import solver_of

PHASES = ("growth", "steady", "drain")  # till the first chunk has left; a full window; no more chunks enter


@dataclass(frozen=True, slots=True)
class Ready:
    """What sampling needs, bound to a prompt."""

    levels: NoiseLevels
    solver: Solver
    noise: Noise
    denoiser: Denoiser
    graphs: GraphPolicy | None
    bound_s: float  # seconds to read the prompt and make the video's constants


class Step(NamedTuple):
    """One step as it was timed."""

    seconds: float
    phase: str
    finished: bool  # it left a chunk clean


def ready(config: GenerationConfig, model: ModelRunner) -> Ready:
    """Bind the model to the prompt."""
    levels = pipeline.levels_of(config).to(model.device)
    begun = time.perf_counter()
    prompt, scale = config.formatted_prompt, config.guidance_scale
    execution = config.execution
    denoiser = model.denoiser(prompt.text, config.schedule, levels, scale, execution, negative=prompt.negative)
    synchronise(model.device)
    bound = time.perf_counter() - begun
    noise = seeded_noise(config.seed, model.noise_shape())
    solver = solver_of(config.solver, levels)
    return Ready(levels, solver, noise, denoiser, pipeline.graphs_of(config, model), bound)


def whole(config: GenerationConfig, model: ModelRunner, made: Ready) -> list[Step]:
    """Every step of the video, without decoding; what the first step of a kind builds is built before."""
    warm_up(config, made)
    states = denoise(
        config.schedule, made.denoiser, made.noise, made.solver, chunks=config.total_chunks, graphs=made.graphs
    )
    return list(timed(states, config, made.graphs))


@torch.no_grad()
def warm_up(config: GenerationConfig, made: Ready) -> None:
    """One step of every size that the video has, with a context and without, on zeros."""
    start = from_nothing(made.noise, made.levels.sigmas)
    for inputs in warmup_inputs(config.schedule, made.denoiser, made.solver, start, config.total_chunks, inf):
        denoise_step(*inputs, denoiser=made.denoiser, solver=made.solver)


def steady(config: GenerationConfig, model: ModelRunner, made: Ready, count: int) -> list[Step]:
    """So many steps of a full window, of a random clip noised; those of one shift before them warm up."""
    length = config.schedule.window + config.schedule.context
    clip = sample_noise(made.noise, range(-length, 0), made.levels.sigmas.new_empty(model.noise_shape())[:, None])
    start = from_renoised(config.schedule, clip, made.noise, made.levels.sigmas, keep_copies=True)
    states = denoise(
        config.schedule, made.denoiser, made.noise, made.solver, chunks=None, start=start, graphs=made.graphs
    )
    warm_up = config.schedule.stride
    return list(islice(timed(states, config, made.graphs), warm_up, warm_up + count))


def timed(states: Iterator[SamplerState], config: GenerationConfig, graphs: GraphPolicy | None) -> Iterator[Step]:
    """Each step with its time, the device waited for; what recording `graphs` took before the first is in none."""
    last, recording = time.perf_counter(), graphs.seconds if graphs else 0.0
    for state in states:
        synchronise(state.window.device)
        spent = time.perf_counter() - last
        if graphs:
            spent, recording = spent - (graphs.seconds - recording), graphs.seconds
        yield Step(spent, phase(config, state), config.schedule.level(state.chunks[0], state.now) == 0)
        last = time.perf_counter()


def phase(config: GenerationConfig, state: SamplerState) -> str:
    """Growth while no chunk has left, drain once none enters."""
    if len(state.chunks) == config.schedule.capacity and (state.context.shape[1] or not config.schedule.context):
        return "steady"
    return "growth" if not state.context.shape[1] and state.chunks.start <= 0 else "drain"


def seconds_of(steps: list[Step], name: str) -> list[float]:
    """Durations of a phase's steps."""
    return [step.seconds for step in steps if step.phase == name]


def typical(steps: list[Step]) -> list[float]:
    """Durations of the steady steps, or of all where a video is too short for any."""
    return seconds_of(steps, "steady") or [step.seconds for step in steps]


def chunk_seconds(steps: list[Step]) -> list[float]:
    """From one finished chunk to the next, where the window was full all the while."""
    found: list[float] = []
    spent = None
    for step in steps:
        spent = None if spent is None or step.phase != "steady" else spent + step.seconds
        if step.finished:
            found += [] if spent is None else [spent]
            spent = 0.0
    return found


def reuses_context(config: GenerationConfig) -> bool:
    """Whether the context's keys and values are cached until the window shifts."""
    return config.execution.reuse_context


def step_tflop(config: GenerationConfig, model: ModelRunner) -> float:
    """TFLOP of a steady step, its share of the prefill included."""
    prompt = model.embed(config.formatted_prompt.text or "a", cfg=False)[0]
    tokens = len(prompt.rows) if prompt.mask is None else int(prompt.mask.sum())
    return 1e-12 * step_flops(config, model, config.schedule.window, config.schedule.context, tokens)


def step_flops(config: GenerationConfig, model: ModelRunner, noisy: int, clean: int, tokens: int) -> float:
    """FLOP of a step with so many latents in the window and the context, its share of the prefill included."""
    batch, layout, span = (1 if config.guidance_scale == 1 else 2), model.layout, min(noisy, config.spec.window)
    cached = clean if reuses_context(config) else 0
    later = -(-2 * (noisy - span) // span)  # of a window longer than the model sees, half of each span is new

    def flops(window: int, context: int, prefill: bool = False) -> float:
        return model.model.flops(StepShape(batch, window, context, tokens, prefill), layout)

    total = flops(span + clean - cached, cached) + later * flops(span, 0)
    return total + (flops(cached, 0, prefill=True) / config.schedule.stride if cached else 0.0)
