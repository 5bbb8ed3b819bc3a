"""A request to frames, as a generator: load, encode the prompt, sample, decode, chunk by chunk in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.attention import check_backend, machine_of
from pavdm_cli.generation.checks import format_prompt, schedule_of
from pavdm_cli.generation.recovery import Recovery, check_encoded
from pavdm_cli.generation.reencode import chaining_notes, reencoded, reencodes
from pavdm_cli.generation.request import Request, Sampling
from pavdm_cli.generation.settings import Settings, settle
from pavdm_cli.models.compiled import NOTE, check_compile
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.load import (
    Loaded,
    in_precision,
    load,
    pick_device,
    with_attention,
    with_offload,
    wording,
)
from pavdm_cli.models.opensora.config import warp_ratio
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.specs import ModelSpec
from pavdm_cli.models.upcast import float32_transformer
from pavdm_cli.sampling.cuda_graphs import GraphPolicy, check_graphs, choose_graphs
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import (
    SamplerState,
    States,
    denoise,
    from_clip,
    from_renoised,
    new_chunks,
    regroup,
    with_repair,
)
from pavdm_cli.sampling.masked_clips import ClipCondition, sample_masked_clips
from pavdm_cli.sampling.noise import NoiseLevels, linear_sigmas, noise_levels, seeded_noise, warped_sigmas
from pavdm_cli.sampling.prefetch import map_prefetched
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import euler

Pixels = NDArray[np.uint8]


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
    def caption(self) -> str:
        """The prompt in full, in the form of the model's training captions; empty without one."""
        prompt, seed = self.prompt, self.sampling.seed
        return format_prompt(self.spec, prompt, seed, self.source_caption).text if prompt else ""

    @property
    def wording(self) -> str:
        """The prompt as the text encoder is given it."""
        return wording(self.spec, self.caption, self.sampling.reading)

    @property
    def scale(self) -> float:
        """How far sampling guides beyond what one pass gives; 1 takes no second pass."""
        return self.settings.guidance / self.spec.guided if self.prompt else 1.0

    @property
    def frames_per_chunk(self) -> Fraction:
        """Frames that leave the window at a time; no whole number where a chunk is no whole group of the codec."""
        latents, frames = self.spec.group
        return Fraction(self.schedule.chunk * frames, latents)

    @property
    def chunks(self) -> int:
        """Chunks of the video: the last may be cut."""
        return -(-self.spec.latents(self.frames) // self.schedule.chunk)

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
    wordless = request.extension is not None and not request.prompt
    notes = (
        ["no prompt: continued without words; --prompt says what to show"]
        if wordless
        else [*format_prompt(spec, request.prompt, request.sampling.seed, request.source_caption).notes]
    )
    schedule = schedule_of(request.sampling)
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


def open_model(job: Job) -> Loaded:
    """The job's model on its device, under its number of threads. Raises: DeviceError, ModelError."""
    device = pick_device(job.sampling.device)
    check_graphs(job.sampling.engine.cuda_graphs, device)
    check_compile(job.sampling.engine.compile, device)
    set_threads(job)
    reader = pick_device(wanted, "--text-device") if (wanted := job.sampling.reading.device) else device
    engine = job.sampling.engine
    model = load(job.spec, device, reader=reader, wording=job.wording, engine=engine)
    model = with_offload(in_precision(model, job.settings.precision), engine.offload)
    return with_attention(replace(model, fp32_timesteps=job.sampling.fp32_timesteps), engine.attention)


def set_threads(job: Job) -> None:
    """As many CPU threads as were asked for, or as torch likes."""
    if job.sampling.threads:
        torch.set_num_threads(job.sampling.threads)


def levels_of(job: Job) -> NoiseLevels:
    """Noise fraction of every level, as the model's timesteps are spaced."""
    if not job.spec.scaled:
        return noise_levels(linear_sigmas(job.schedule.steps))
    seen = min(job.schedule.window, job.spec.window) + job.schedule.context
    return noise_levels(warped_sigmas(job.schedule.steps, warp_ratio(*job.spec.size, job.spec.frames(seen))))


def graphs_of(job: Job, model: Loaded) -> GraphPolicy | None:
    """What records the job's steps, if anything does; after the first step it knows how many and what they hold."""
    asked = job.sampling
    return choose_graphs(asked.engine.cuda_graphs, model.device, model.stream(job.scale), asked.unrecordable)


def latents(
    job: Job,
    model: Loaded,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """The video's chunks of latents, (1, chunk, C, h, w), each as soon as it is clean. Raises: FaultyValues.

    start: after a clip or a picture, which leaves no warm-up; graphs: as `graphs_of` unless given; on_warmup: called
    for every chunk of the warm-up.
    """
    if start is not None:
        job = replace(job, settings=replace(job.settings, warmup=0))
    recovery = recovery or Recovery(model)
    recovery.warmup = job.settings.warmup
    chunks = generated(job, model, start, graphs or graphs_of(job, model), recovery)
    for _ in islice(chunks, job.settings.warmup):
        on_warmup()
    yield from chunks


def generated(
    job: Job, model: Loaded, start: SamplerState | None, graphs: GraphPolicy | None, recovery: Recovery
) -> Iterator[Tensor]:
    """Every chunk of latents, those of the warm-up too. Raises: FaultyValues."""
    levels = levels_of(job).to(model.device)
    solver = euler(levels)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    again = recovery.encoded_anew if reencodes(job.sampling, job.schedule) else None
    edit = job.sampling.edit_ratio

    def bind(of: Loaded, engine: Engine) -> Denoiser:
        denoiser = of.bind(job.wording, job.schedule, levels, job.scale, engine)
        return reencoded(denoiser, again, start) if again and not edit else denoiser

    def float32() -> Denoiser:
        return bind(float32_transformer(model), replace(job.sampling.engine, compile=False))

    def steps(of: Denoiser, sound: SamplerState | None, graphs: GraphPolicy | None = None) -> States:
        return denoise(job.schedule, of, noise, solver, chunks=job.total_chunks, start=sound, graphs=graphs)

    denoiser = bind(model, job.sampling.engine)
    if edit:
        condition = ClipCondition(edit, again or (lambda overlap: overlap), recovery.clip_repair(float32))
        count = job.total_chunks
        yield from sample_masked_clips(
            job.schedule, denoiser, noise, solver, chunks=count, start=start, condition=condition
        )
        return
    repair = recovery.state_repair(lambda sound: steps(float32(), sound))
    yield from new_chunks(job.schedule, with_repair(steps(denoiser, start, graphs), job.schedule, start, repair))


def frames(
    job: Job,
    model: Loaded,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
    recovery: Recovery | None = None,
    on_warmup: Callable[[], object] = lambda: None,
) -> Iterator[Pixels]:
    """The video's frames, (n, H, W, 3) bytes at a time, exactly as many as asked for. Arguments as `latents`."""
    left, recovery = job.frames, recovery or Recovery(model)
    runs = regroup(latents(job, model, start, graphs, recovery, on_warmup), job.spec.group[0])
    for pixels in decoded(job, model, runs, recovery):
        yield pixels[:left]
        left -= len(pixels)


def decoded(job: Job, model: Loaded, runs: Iterator[Tensor], recovery: Recovery) -> Iterator[Pixels]:
    """Each run of latents as frames: beside the steps of the next where asked, and by itself on a GPU."""
    done = 0

    @torch.no_grad()
    def work(run: Tensor) -> Pixels:
        nonlocal done
        chunk, done = done // job.schedule.chunk, done + run.shape[1]
        return to_bytes(recovery.decoded(chunk, run)[0])

    if job.sampling.engine.overlaps_decode(model.device.type):
        return map_prefetched(runs, work, model.device)
    return map(work, runs)


@torch.no_grad()
def decode(model: Loaded, chunk: Tensor) -> Pixels:  # (1, T, C, h, w) -> (n, H, W, 3)
    """A chunk of latents to frames."""
    return to_bytes(model.codec.decode(chunk)[0])


@torch.no_grad()
def start_from(job: Job, model: Loaded, clip: Tensor, noised: bool) -> SamplerState:
    """Where sampling goes on from a clip (n, 3, H, W), 0 to 1: after its last chunk, or from its last window noised."""
    given = check_encoded(model.codec.encode(clip[None]), job.spec.latent_limit)
    sigmas = levels_of(job).sigmas.to(model.device)
    if not noised:
        return from_clip(job.schedule, given, sigmas)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    return from_renoised(job.schedule, given, noise, sigmas)
