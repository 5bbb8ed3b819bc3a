"""From a configuration to frames: load, encode the prompt, sample and decode, chunk by chunk in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Pixels, RenderedChunk, RenderState, decode_chunks
from pavdm_cli.generation.prompts import make_denoiser
from pavdm_cli.generation.recovery import Recovery, check_encoded
from pavdm_cli.generation.reencode import with_reencoding
from pavdm_cli.models.devices import set_threads
from pavdm_cli.models.lora_file import parse_lora
from pavdm_cli.models.open_runner import open_runner, placement_for
from pavdm_cli.models.parallel import Channel, Workers
from pavdm_cli.models.runner import ModelRunner, with_attention, with_offload
from pavdm_cli.models.sharding import with_sharding
from pavdm_cli.models.torch_compile import check_compile
from pavdm_cli.sampling.cuda_graphs import GraphCapturer, choose_graphs, require_cuda_for_graphs
from pavdm_cli.sampling.denoiser import AnyDenoiser, Denoiser
from pavdm_cli.sampling.loop import (
    SampledChunk,
    SamplerState,
    States,
    denoise,
    move_state,
    new_chunks,
    state_from_clip,
    state_from_renoised_clip,
    tail,
    with_repair,
)
from pavdm_cli.sampling.masked_clips import ClipCondition, sample_masked_clips
from pavdm_cli.sampling.noise import NoiseLevels, seeded_noise
from pavdm_cli.sampling.solvers import build_solver

MAX_REPLAY = 64  # warm-up latents kept to prime the decoder


def open_model(config: GenerationConfig) -> ModelRunner:
    """Load the model on its device and set the number of CPU threads. Raises: DeviceError, ModelError."""
    execution = config.execution
    require_cuda_for_graphs(execution.cuda_graphs, config.device)
    check_compile(execution.compile, config.device)
    set_threads(execution.threads)
    placement = replace(placement_for(execution, config.text_device), lora=tuple(map(parse_lora, config.lora)))
    texts = [text for prompt in config.prompts for text in (prompt.text, prompt.negative)]
    prompts = [text for text in texts if text or (text == "" and config.spec.empty_prompt)]
    workers = Workers(Channel(0, execution.processes)) if execution.processes > 1 else None
    wait = workers.load(config.spec, placement, execution, config.options) if workers else None
    runner = open_runner(config.video_model, config.spec, placement, prompts=prompts, options=config.options)
    runner = with_attention(with_offload(runner, execution.offload), execution.attention)
    runner = with_sharding(replace(runner, workers=workers), execution)
    if wait:
        wait()
    return runner


def make_levels(config: GenerationConfig) -> NoiseLevels:
    """The model's noise levels for this schedule."""
    num_visible = min(config.schedule.window, config.spec.window) + config.schedule.position_offset
    return config.video_model.noise_levels(config.schedule.steps, config.spec.size, num_visible, config.options)


def choose_graph_capturer(config: GenerationConfig, model: ModelRunner) -> GraphCapturer | None:
    """The capturer of CUDA graphs, or None; its count and memory are known after the first step."""
    mode, values = config.execution.cuda_graphs, model.residual_values(config.guidance_scale)
    return choose_graphs(mode, model.device, values, config.graph_conflict)


def sample_latents(
    config: GenerationConfig,
    model: ModelRunner,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
) -> Iterator[Tensor]:
    """The video's chunks of latents, (1, chunk, C, h, w), each as soon as it is clean. Raises: InvalidOutputError.

    start: state after a clip or image (no warm-up then); graph_capturer: defaults to `choose_graph_capturer`.
    """
    return (chunk.latents for chunk in sample_chunks(config, model, start, graph_capturer, recovery))


def sample_chunks(
    config: GenerationConfig,
    model: ModelRunner,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[Tensor], object] = lambda chunk: None,
) -> Iterator[SampledChunk]:
    """Like `sample_latents`, with the state after each chunk; on_warmup: called with every warm-up chunk.

    Kept chunks (`GenerationConfig.num_kept_chunks`) follow the sampled ones.
    start: also a state yielded with an earlier chunk, to continue after it.
    """
    is_continued = start is not None and (start.now > 0 or len(start.chunks) > 0 or start.context.shape[1] > 0)
    if is_continued and start is not None and not start.now:
        config = config.without_warmup()
    recovery = recovery or Recovery(model)
    recovery.warmup = config.warmup
    chunks = sample_all_chunks(config, model, start, graph_capturer or choose_graph_capturer(config, model), recovery)
    for chunk in islice(chunks, 0 if is_continued else config.warmup):
        on_warmup(chunk.latents)
    state = start
    for chunk in chunks:
        state = chunk.state
        yield chunk
    if config.num_kept_chunks and state:
        yield SampledChunk(tail(state.window, config.schedule.right_context).clone(), state)


def sample_all_chunks(
    config: GenerationConfig,
    model: ModelRunner,
    start: SamplerState | None,
    graph_capturer: GraphCapturer | None,
    recovery: Recovery,
) -> Iterator[SampledChunk]:
    """Every chunk of latents, including the warm-up. Raises: InvalidOutputError."""
    levels = make_levels(config).to(model.device)
    solver = build_solver(config.solver, levels)
    noise = seeded_noise(config.seed, model.noise_shape())
    reencode_context = recovery.reencode_checked if config.reencode else None
    edit_ratio = config.edit_ratio

    def wrap(denoiser: Denoiser) -> Denoiser:
        return with_reencoding(denoiser, reencode_context, start) if reencode_context and not edit_ratio else denoiser

    def float32_denoiser() -> AnyDenoiser:
        execution = replace(config.execution, compile=False)
        return make_denoiser(replace(config, execution=execution), model.upcast("transformer"), levels, wrap)

    def steps(
        denoiser: AnyDenoiser, start_state: SamplerState | None, graph_capturer: GraphCapturer | None = None
    ) -> States:
        return denoise(
            config.schedule,
            denoiser,
            noise,
            solver,
            chunks=config.chunks_to_sample,
            start=start_state,
            graph_capturer=graph_capturer,
        )

    denoiser = make_denoiser(config, model, levels, wrap)
    if edit_ratio:
        condition = ClipCondition(
            edit_ratio, reencode_context or (lambda context: context), recovery.clip_repair(float32_denoiser)
        )
        inputs = (config.schedule, denoiser, noise, solver)
        yield from sample_masked_clips(*inputs, chunks=config.chunks_to_sample, start=start, condition=condition)
        return
    repair = recovery.make_state_repair(lambda start_state: steps(float32_denoiser(), start_state))
    yield from new_chunks(
        config.schedule, with_repair(steps(denoiser, start, graph_capturer), config.schedule, start, repair)
    )


def generate_frames(
    config: GenerationConfig,
    model: ModelRunner,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[Pixels]:
    """The video's frames, (n, H, W, 3) bytes at a time, exactly `config.frames` in all; see `sample_latents`."""
    chunks = render_chunks(config, model, start, graph_capturer, recovery, on_warmup)
    return (chunk.frames for chunk in chunks if len(chunk.frames))


def render_chunks(
    config: GenerationConfig,
    model: ModelRunner,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[RenderedChunk]:
    """Like `generate_frames`, with the state after each chunk."""
    recovery, priming_latents = recovery or Recovery(model), conditioning_latents(start)

    def drop_warmup(chunk: Tensor) -> None:
        nonlocal priming_latents
        latents = chunk if priming_latents is None else torch.cat([priming_latents, chunk], dim=1)
        priming_latents = tail(latents, MAX_REPLAY)
        on_warmup()

    return decode_chunks(
        config,
        sample_chunks(config, model, start, graph_capturer, recovery, drop_warmup),
        recovery,
        lambda: priming_latents,
    )


def render_from(
    config: GenerationConfig,
    model: ModelRunner,
    state: RenderState,
    graph_capturer: GraphCapturer | None,
    recovery: Recovery,
) -> Iterator[RenderedChunk]:
    """Continue `render_chunks` after one of its states."""
    chunks = sample_chunks(config, model, move_state(state.sampler, model.device), graph_capturer, recovery)
    return decode_chunks(config, chunks, recovery, resume=state)


def conditioning_latents(start: SamplerState | None) -> Tensor | None:
    """The clip's latents that the video continues, if any."""
    if start is None or start.chunks.start > 0 or start.num_fixed:
        return None
    clip_latents = torch.cat([start.context, start.originals], dim=1)
    return clip_latents if clip_latents.shape[1] else None


@torch.no_grad()
def state_after_clip(config: GenerationConfig, model: ModelRunner, clip: Tensor, renoise: bool) -> SamplerState:
    """The state that continues a clip (n, 3, H, W), 0 to 1: after its last chunk, or with its last window re-noised."""
    clip_latents = check_encoded(model.encode(clip[None]), config.spec.latent_limit)
    sigmas = make_levels(config).sigmas.to(model.device)
    if not renoise:
        return state_from_clip(config.schedule, clip_latents, sigmas)
    noise = seeded_noise(config.seed, model.noise_shape())
    return state_from_renoised_clip(config.schedule, clip_latents, noise, sigmas)
