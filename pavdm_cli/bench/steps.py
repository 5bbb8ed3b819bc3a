"""Steps of a video timed one by one: which phase each was in, and when chunks were finished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import NamedTuple

import torch

from pavdm_cli.bench.synchronize import synchronize
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import (
    SamplerState,
    States,
    denoise,
    denoise_step,
    empty_state,
    state_from_renoised_clip,
    warmup_inputs,
)
from pavdm_cli.sampling.noise import Noise, NoiseLevels, sample_noise, seeded_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import Solver
from pavdm_cli.sampling.solvers import build_solver

# Ramp-up, until the first chunk leaves; steady state; ramp-down, once no chunk enters.
PHASES = ("growth", "steady", "drain")
BEFORE_CLIP = -1_000_000  # index of a chunk that was evicted from the context long ago


@dataclass(frozen=True, slots=True)
class SamplingInputs:
    """The denoiser of a prompt and everything else that sampling needs."""

    levels: NoiseLevels
    solver: Solver
    noise: Noise
    denoiser: Denoiser
    graph_capturer: GraphCapturer | None
    bind_seconds: float  # seconds to encode the prompt and compute the constants of the video

    def denoise(self, schedule: Schedule, chunks: int | None, start: SamplerState | None = None) -> States:
        """The states after each step; arguments as for `sampling.loop.denoise`."""
        inputs = schedule, self.denoiser, self.noise, self.solver
        return denoise(*inputs, chunks=chunks, start=start, graph_capturer=self.graph_capturer)


class Step(NamedTuple):
    """The time of one step."""

    seconds: float
    phase: str
    finished: bool  # a chunk became clean


def prepare_sampling(config: GenerationConfig, model: ModelRunner) -> SamplingInputs:
    """Build the inputs of sampling for a configuration."""
    levels = pipeline.make_levels(config).to(model.device)
    start_time = time.perf_counter()
    prompt, scale = config.formatted_prompt, config.guidance_scale
    execution = config.execution
    denoiser = model.denoiser(prompt.text, config.schedule, levels, scale, execution, negative=prompt.negative)
    synchronize(model.device)
    bind_seconds = time.perf_counter() - start_time
    noise = seeded_noise(config.seed, model.noise_shape())
    solver = build_solver(config.solver, levels)
    return SamplingInputs(levels, solver, noise, denoiser, pipeline.choose_graph_capturer(config, model), bind_seconds)


def time_all_steps(config: GenerationConfig, model: ModelRunner, inputs: SamplingInputs) -> list[Step]:
    """Time every step of the video, without decoding, after a warm-up."""
    warm_up(config, inputs)
    states = inputs.denoise(config.schedule, config.total_chunks)
    return list(time_states(states, config, inputs.graph_capturer))


@torch.no_grad()
def warm_up(config: GenerationConfig, inputs: SamplingInputs) -> None:
    """Run one step of every size that the video has, with and without context, on zeros."""
    start = empty_state(inputs.noise, inputs.levels.sigmas)
    for arguments in warmup_inputs(config.schedule, inputs.denoiser, inputs.solver, start, config.total_chunks, inf):
        denoise_step(*arguments, denoiser=inputs.denoiser, solver=inputs.solver)


def steady(config: GenerationConfig, model: ModelRunner, inputs: SamplingInputs, count: int) -> list[Step]:
    """Time `count` steps of a full window, from a re-noised random clip, after the steps of one shift."""
    sink = range(BEFORE_CLIP, BEFORE_CLIP + len(config.schedule.sink))
    schedule = replace(config.schedule, sink=sink)
    length = schedule.window + schedule.sink_and_context
    clip = sample_noise(inputs.noise, range(-length, 0), inputs.levels.sigmas.new_empty(model.noise_shape())[:, None])
    start = state_from_renoised_clip(schedule, clip, inputs.noise, inputs.levels.sigmas, keep_copies=True)
    start = replace(start, sink=clip[:, : len(schedule.latents(sink))] if sink else None)
    states = inputs.denoise(schedule, chunks=None, start=start)
    warm_up = config.schedule.stride
    return list(islice(time_states(states, config, inputs.graph_capturer), warm_up, warm_up + count))


def time_states(
    states: Iterator[SamplerState], config: GenerationConfig, graph_capturer: GraphCapturer | None
) -> Iterator[Step]:
    """Each step with its time, synchronized; the time to capture graphs is not included."""
    last, capturing = time.perf_counter(), graph_capturer.seconds if graph_capturer else 0.0
    for state in states:
        synchronize(state.window.device)
        seconds = time.perf_counter() - last
        if graph_capturer:
            seconds, capturing = seconds - (graph_capturer.seconds - capturing), graph_capturer.seconds
        yield Step(seconds, phase(config, state), config.schedule.level(state.chunks[0], state.now) == 0)
        last = time.perf_counter()


def phase(config: GenerationConfig, state: SamplerState) -> str:
    """The phase of a state."""
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
    """Seconds between finished chunks during which the window was full."""
    durations: list[float] = []
    seconds = None
    for step in steps:
        seconds = None if seconds is None or step.phase != "steady" else seconds + step.seconds
        if step.finished:
            durations += [] if seconds is None else [seconds]
            seconds = 0.0
    return durations


def reuses_context(config: GenerationConfig) -> bool:
    """Whether the context's keys and values are cached until the window shifts."""
    return config.execution.reuse_context


def step_tflop(config: GenerationConfig, model: ModelRunner) -> float:
    """TFLOP of a steady step, its share of the prefill included."""
    prompt = model.embed(config.formatted_prompt.text or "a", cfg=False)[0]
    tokens = len(prompt.embeds) if prompt.mask is None else int(prompt.mask.sum())
    return 1e-12 * step_flops(config, model, config.schedule.window, config.schedule.sink_and_context, tokens)


def step_flops(config: GenerationConfig, model: ModelRunner, noisy: int, clean: int, tokens: int) -> float:
    """FLOP of a step with so many latents in the window and the context, its share of the prefill included."""
    batch, layout = (1 if config.guidance_scale == 1 else 2), model.layout
    span = min(noisy, config.spec.window) if config.schedule.window > config.spec.window else noisy
    num_cached = clean if reuses_context(config) else 0
    later = -(-2 * (noisy - span) // span)  # of a window longer than the model sees, half of each span is new

    def flops(window: int, context: int, prefill: bool = False) -> float:
        return model.model.flops(StepShape(batch, window, context, tokens, prefill), layout)

    total = flops(span + clean - num_cached, num_cached) + later * flops(span, 0)
    return total + (flops(num_cached, 0, prefill=True) / config.schedule.stride if num_cached else 0.0)
