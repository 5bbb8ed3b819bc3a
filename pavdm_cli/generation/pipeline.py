"""A request to frames, as a generator: load, encode the prompt, sample, decode, chunk by chunk in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import torch
from torch import Tensor

from pavdm_cli.attention import check_backend, machine_of
from pavdm_cli.generation.checks import format_prompt, schedule_of_request
from pavdm_cli.generation.decode import Pixels, Rendered, RenderState, decoded
from pavdm_cli.generation.recovery import Recovery, check_encoded
from pavdm_cli.generation.reencode import chaining_notes, reencodes, with_reencoding
from pavdm_cli.generation.request import Request, Sampling
from pavdm_cli.generation.settings import Settings, settle, text_device_of
from pavdm_cli.models.adapter import Prompt, VideoModel
from pavdm_cli.models.adapters import parse_adapter
from pavdm_cli.models.compiled import NOTE, check_compile
from pavdm_cli.models.devices import pick_device, set_threads
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.runner import ModelRunner, open_runner, place, with_attention, with_offload
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.sampling.cuda_graphs import GraphPolicy, check_graphs, choose_graphs
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import (
    SampledChunk,
    SamplerState,
    States,
    denoise,
    from_clip,
    from_renoised,
    move_state,
    new_chunks,
    tail,
    with_repair,
)
from pavdm_cli.sampling.masked_clips import ClipCondition, sample_masked_clips
from pavdm_cli.sampling.noise import NoiseLevels, seeded_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solvers import solver_of

MOST_REPLAY = 64  # latents of a warm-up that a decoder may need to begin after it


@dataclass(frozen=True, slots=True)
class Job:
    """A request with everything decided: the model, the schedule, and how many chunks and frames to make."""

    prompt: str
    spec: ModelSpec
    sampling: Sampling
    settings: Settings
    schedule: Schedule
    frames: int
    notes: tuple[str, ...]
    given: int = 0  # frames of a clip or a picture that it begins with, encoded before the first step
    source_caption: str = ""  # of the video that is continued

    @property
    def video_model(self) -> VideoModel:
        """The model, without weights."""
        return self.sampling.video_model

    @property
    def formatted(self) -> Prompt:
        """The prompt as the text encoder gets it; empty where there is none."""
        return format_prompt(self.sampling, self.prompt, self.source_caption) if self.prompt else Prompt("")

    @property
    def layout(self) -> LatentLayout:
        """How its latents stand for frames."""
        return self.video_model.layout(self.spec.size, self.spec.fps)

    @property
    def holds_image(self) -> bool:
        """Whether a given image is the first latent of the first chunk, else the end of a still clip before it."""
        alone = self.layout.unit > 1 or not self.schedule.context
        return self.layout.first == 1 and alone and not self.schedule.noisy_context

    @property
    def given_latents(self) -> int:
        """Latents of the given frames that precede the video."""
        return self.layout.fitting(self.given)

    @property
    def begun(self) -> bool:
        """Whether the video's frames continue a stream of latents, of given frames or of a warm-up."""
        return bool(self.settings.warmup or (self.given_latents and (self.schedule.context or self.schedule.fill_to)))

    @property
    def guidance_scale(self) -> float:
        """How far sampling guides beyond what one pass gives; 1 takes no second pass."""
        return self.settings.guidance / self.spec.distilled_guidance if self.prompt else 1.0

    @property
    def frames_per_chunk(self) -> Fraction:
        """Frames that leave the window at a time; no whole number where a chunk is no whole unit of the VAE."""
        return self.schedule.chunk * self.layout.frames_per_latent

    @property
    def chunks(self) -> int:
        """Chunks of the video: the last may be cut."""
        return self.schedule.chunks(self.layout.latents(self.frames, self.begun))

    @property
    def total_chunks(self) -> int:
        """Chunks to generate, those of the warm-up included."""
        return self.settings.warmup + self.chunks

    @property
    def warmup_frames(self) -> int:
        """As many frames as the chunks of the warm-up would be."""
        return int(self.settings.warmup * self.frames_per_chunk)

    @property
    def steps(self) -> int:
        """Model calls in all."""
        return self.schedule.total(self.total_chunks)


def plan(request: Request) -> Job:
    """Decide all that needs no weights, so that bad values fail before any work. Raises: UsageError, DeviceError."""
    spec, settings = request.spec, settle(request.sampling, from_noise=not request.continues)
    check_backend(request.sampling.engine.attention, machine_of(pick_device(request.sampling.device)))
    if request.extension and not request.prompt:
        notes = ["no prompt: continued without words; --prompt says what to show"]
    else:
        notes = [*format_prompt(request.sampling, request.prompt, request.source_caption).notes]
    schedule = schedule_of_request(request, settings.warmup)
    notes += [schedule.note] if schedule.note else []
    notes += chaining_notes(request.sampling, schedule)
    notes += [NOTE] if request.sampling.engine.compile else []
    if settings.context_cache == "reuse" and not spec.causal:
        notes.append(
            f"{spec.name} was trained with bidirectional attention: --context-cache reuse is an approximation; "
            "`pavdm bench throughput --context-cache reuse` measures its error"
        )
    if settings.method != spec.method and spec.tuned:
        notes.append(f"{spec.name} was trained for {spec.method}; {settings.method} is for comparison")
    decided = (spec, request.sampling, settings, schedule, request.count, tuple(notes))
    return Job(request.prompt, *decided, source_caption=request.source_caption)


def open_model(job: Job) -> ModelRunner:
    """The job's model on its device, under its number of threads. Raises: DeviceError, ModelError."""
    device, sampling = pick_device(job.sampling.device), job.sampling
    check_graphs(sampling.engine.cuda_graphs, device)
    check_compile(sampling.engine.compile, device)
    set_threads(sampling.threads)
    where = place(device, sampling.engine, job.settings.precision, text_device_of(sampling))
    placement = replace(where, lora=tuple(map(parse_adapter, sampling.lora)))
    texts = (job.formatted.text, job.formatted.negative)
    prompts = [text for text in texts if text or (text == "" and job.spec.empty_prompt)]
    runner = open_runner(job.video_model, job.spec, placement, prompts=prompts, options=sampling.options)
    return with_attention(with_offload(runner, sampling.engine.offload), sampling.engine.attention)


def levels_of(job: Job) -> NoiseLevels:
    """Noise fraction and timestep of every level, as the model was trained."""
    seen = min(job.schedule.window, job.spec.window) + job.schedule.offset
    return job.video_model.noise_levels(job.schedule.steps, job.spec.size, seen, job.sampling.options)


def graphs_of(job: Job, model: ModelRunner) -> GraphPolicy | None:
    """What records the job's steps, if anything does; after the first step it knows how many and what they hold."""
    mode, values = job.sampling.engine.cuda_graphs, model.residual_values(job.guidance_scale)
    return choose_graphs(mode, model.device, values, job.sampling.unrecordable)


def latents(
    job: Job,
    model: ModelRunner,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
) -> Iterator[Tensor]:
    """The video's chunks of latents, (1, chunk, C, h, w), each as soon as it is clean. Raises: FaultyValues.

    start: after a clip or a picture, which leaves no warm-up; graphs: as `graphs_of` unless given.
    """
    return (chunk.latents for chunk in sampled(job, model, start, graphs, recovery))


def sampled(
    job: Job,
    model: ModelRunner,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[Tensor], object] = lambda chunk: None,
) -> Iterator[SampledChunk]:
    """As `latents`, with the state after each chunk; on_warmup: called with every chunk of the warm-up.

    start: also a state that came with a chunk of this job, after which sampling continues.
    """
    if start is not None and not start.now:
        job = replace(job, settings=replace(job.settings, warmup=0))
    recovery = recovery or Recovery(model)
    recovery.warmup = job.settings.warmup
    chunks = generated(job, model, start, graphs or graphs_of(job, model), recovery)
    for chunk in islice(chunks, 0 if start is not None else job.settings.warmup):
        on_warmup(chunk.latents)
    yield from chunks


def generated(
    job: Job, model: ModelRunner, start: SamplerState | None, graphs: GraphPolicy | None, recovery: Recovery
) -> Iterator[SampledChunk]:
    """Every chunk of latents, those of the warm-up too. Raises: FaultyValues."""
    levels = levels_of(job).to(model.device)
    solver = solver_of(job.settings.solver, levels)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    again = recovery.reencoded if reencodes(job.sampling, job.schedule) else None
    edit = job.sampling.edit_ratio

    def bind(of: ModelRunner, engine: Engine) -> Denoiser:
        prompt, scale = job.formatted, job.guidance_scale
        denoiser = of.denoiser(prompt.text, job.schedule, levels, scale, engine, negative=prompt.negative)
        return with_reencoding(denoiser, again, start) if again and not edit else denoiser

    def float32() -> Denoiser:
        return bind(model.upcast("transformer"), replace(job.sampling.engine, compile=False))

    def steps(of: Denoiser, sound: SamplerState | None, graphs: GraphPolicy | None = None) -> States:
        return denoise(job.schedule, of, noise, solver, chunks=job.total_chunks, start=sound, graphs=graphs)

    denoiser = bind(model, job.sampling.engine)
    if edit:
        condition = ClipCondition(edit, again or (lambda context: context), recovery.clip_repair(float32))
        inputs = (job.schedule, denoiser, noise, solver)
        yield from sample_masked_clips(*inputs, chunks=job.total_chunks, start=start, condition=condition)
        return
    repair = recovery.state_repair(lambda sound: steps(float32(), sound))
    yield from new_chunks(job.schedule, with_repair(steps(denoiser, start, graphs), job.schedule, start, repair))


def frames(
    job: Job,
    model: ModelRunner,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[Pixels]:
    """The video's frames, (n, H, W, 3) bytes at a time, exactly as many as asked for. Arguments as `latents`."""
    every = rendered(job, model, start, graphs, recovery, on_warmup)
    return (chunk.frames for chunk in every if len(chunk.frames))


def rendered(
    job: Job,
    model: ModelRunner,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[Rendered]:
    """As `frames`, with the state after each chunk."""
    recovery, before = recovery or Recovery(model), clip_of(start)

    def drop(chunk: Tensor) -> None:
        nonlocal before
        before = tail(chunk if before is None else torch.cat([before, chunk], dim=1), MOST_REPLAY)
        on_warmup()

    return decoded(job, sampled(job, model, start, graphs, recovery, drop), recovery, lambda: before)


def continued(
    job: Job, model: ModelRunner, state: RenderState, graphs: GraphPolicy | None, recovery: Recovery
) -> Iterator[Rendered]:
    """The rest of `rendered` after one of its states."""
    chunks = sampled(job, model, move_state(state.sampler, model.device), graphs, recovery)
    return decoded(job, chunks, recovery, resume=state)


def clip_of(start: SamplerState | None) -> Tensor | None:
    """The given latents that the video continues, if there are any."""
    if start is None or start.chunks.start > 0 or start.num_given:
        return None
    given = torch.cat([start.context, start.originals], dim=1)
    return given if given.shape[1] else None


@torch.no_grad()
def start_from(job: Job, model: ModelRunner, clip: Tensor, noised: bool) -> SamplerState:
    """Where sampling continues a clip (n, 3, H, W), 0 to 1: after its last chunk, or from its last window re-noised."""
    given = check_encoded(model.encode(clip[None]), job.spec.latent_limit)
    sigmas = levels_of(job).sigmas.to(model.device)
    if not noised:
        return from_clip(job.schedule, given, sigmas)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    return from_renoised(job.schedule, given, noise, sigmas)
