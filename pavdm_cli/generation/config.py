"""`resolve` turns a request into a `GenerationConfig`, which holds every decision for a video.

Only `resolve` imports torch, so that stored metadata can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import (
    aligns_with_vae_units,
    build_schedule,
    check_sampling,
    format_prompts,
    graph_conflict,
    requests_reencoding,
    resolve_context,
    resolve_counts,
    resolve_guidance,
    resolve_warmup,
    unit_reason,
)
from pavdm_cli.generation.request import ENDLESS_FRAMES, MAX_CONTEXT, MAX_WARMUP, Request
from pavdm_cli.generation.seamless_loop import make_loop
from pavdm_cli.generation.timeline import MAX_BLEND, STORED, PromptChange, check_reachable, check_timeline
from pavdm_cli.models.adapter import Options, Prompt, VideoModel
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.untrusted import FLAG, changes_frames, integer, number, one_of, string
from pavdm_cli.sampling.schedule import RAMP_UPS, SOLVERS, Schedule

if TYPE_CHECKING:
    import torch

COUNT = integer(1, 10**6)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """The resolved settings of a video. Fields marked `changes_frames` are stored in its metadata."""

    prompt: str
    formatted_prompt: Prompt  # input of the text encoder; empty without a prompt
    video_model: VideoModel
    spec: ModelSpec  # at the size and rate of the video
    schedule: Schedule
    execution: ExecutionConfig
    frames: int = field(metadata=changes_frames(integer(1, 10**9)))
    seed: int = field(metadata=changes_frames(integer(0, 2**63 - 1)))
    method: str = field(metadata=changes_frames(string(20)))
    steps: int = field(metadata=changes_frames(COUNT))
    window: int = field(metadata=changes_frames(COUNT))  # latents
    chunk: int = field(metadata=changes_frames(COUNT))  # latents
    context: int = field(metadata=changes_frames(integer(0, MAX_CONTEXT)))  # clean chunks before the window
    ramp_up: str = field(metadata=changes_frames(one_of(*RAMP_UPS)))
    stride: int = field(metadata=changes_frames(integer(0, 10**6)))  # of the method `windows`
    solver: str = field(metadata=changes_frames(one_of(*SOLVERS)))
    guidance: float = field(metadata=changes_frames(number(0, 100)))
    warmup: int = field(metadata=changes_frames(integer(0, MAX_WARMUP)))  # chunks generated first and dropped
    reencode: bool = field(metadata=changes_frames(FLAG))  # rn: the context is the re-encoded end of the last clip
    edit_ratio: float = field(metadata=changes_frames(number(0, 1)))
    timeline: tuple[PromptChange, ...] = field(default=(), metadata=changes_frames(STORED))  # later prompts
    blend: float = field(default=0.0, metadata=changes_frames(number(0, MAX_BLEND)))  # seconds
    formatted_timeline: tuple[Prompt, ...] = ()  # as `formatted_prompt`
    forever: bool = field(default=False, metadata=changes_frames(FLAG))  # without a ramp-down, until it is stopped
    loop: bool = field(default=False, metadata=changes_frames(FLAG))  # the last chunks are conditioned on the first
    sink: int = 0  # first chunks that stay in front of the context
    repeat_positions: bool = False
    lora: tuple[str, ...] = ()  # files, each with :SCALE or without
    source_caption: str = ""  # of the video that is continued, for what the prompt leaves out
    options: Options = field(default_factory=dict)  # the model's own, as far as they differ from their defaults
    notes: tuple[str, ...] = ()
    open_switches: frozenset[str] = frozenset()  # of `execution`: were `auto`, a memory plan may change them
    num_conditioning_frames: int = 0  # conditioning frames (clip or image) that are encoded before the first step

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        import torch

        return torch.device(self.execution.device)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts in order, as the text encoder gets them."""
        return (self.formatted_prompt, *self.formatted_timeline)

    @property
    def text_device(self) -> torch.device:
        """Where the prompt is encoded: the model's device unless an option of the model says otherwise."""
        import torch

        return torch.device(self.options.get("text_device") or self.execution.device)

    @property
    def layout(self) -> LatentLayout:
        """How latents map to frames."""
        return self.video_model.layout(self.spec.size, self.spec.fps)

    @property
    def graph_conflict(self) -> str:
        """The option that rules out CUDA graphs, and why; empty where steps can be captured."""
        return graph_conflict(self.edit_ratio, self.execution)

    @property
    def image_is_first_latent(self) -> bool:
        """Whether a start image becomes the video's first latent; otherwise it is a still clip in the context."""
        alone = self.layout.unit > 1 or not self.schedule.context
        return self.layout.first == 1 and alone and not self.schedule.noisy_context

    @property
    def num_conditioning_latents(self) -> int:
        """Number of conditioning latents."""
        return self.layout.filled_by(self.num_conditioning_frames)

    @property
    def continues_stream(self) -> bool:
        """Whether conditioning frames or a warm-up precede the first decoded latent in its VAE stream."""
        return bool(self.warmup or (self.num_conditioning_latents and (self.schedule.context or self.schedule.fill_to)))

    @property
    def guidance_scale(self) -> float:
        """Effective CFG scale on top of distilled guidance; 1: no unconditional pass."""
        return self.guidance / self.spec.distilled_guidance if self.prompt else 1.0

    @property
    def frames_per_chunk(self) -> Fraction:
        """Frames per chunk; fractional if a chunk is not a whole number of VAE units."""
        return self.schedule.chunk * self.layout.frames_per_latent

    def start_of(self, chunk: int) -> Fraction:
        """Time at which a chunk begins, in seconds; negative in the warm-up."""
        return Fraction(self.frames_before(chunk - self.warmup), self.spec.fps)

    def latents_before(self, chunk: int) -> int:
        """Number of latents before a chunk of the video, whose first one is 0; negative in the warm-up."""
        first, start = (self.schedule.latents(range(one, one)).start for one in (self.warmup, self.warmup + chunk))
        return start - first

    def frames_before(self, chunk: int) -> int:
        """Number of generated frames before a chunk; arguments as for `latents_before`."""
        latents = self.latents_before(chunk)
        return self.layout.frames(latents, latents, self.continues_stream).start

    @property
    def chunks(self) -> int:
        """Number of chunks in the video; the last may be truncated."""
        return self.schedule.chunks(self.layout.latents(self.frames, self.continues_stream))

    @property
    def endless(self) -> bool:
        """Whether the video runs until it is stopped."""
        return self.forever and self.frames == ENDLESS_FRAMES

    @property
    def sampled_chunks(self) -> int | None:
        """Number of chunks to sample before the ramp-down; None: endless."""
        return None if self.forever else self.total_chunks

    @property
    def total_chunks(self) -> int:
        """Chunks to generate, those of the warm-up included."""
        return self.warmup + self.chunks

    @property
    def warmup_frames(self) -> int:
        """Frames that the warm-up chunks correspond to."""
        return int(self.warmup * self.frames_per_chunk)

    @property
    def total_steps(self) -> int:
        """Total number of denoising steps."""
        return self.schedule.total(self.total_chunks)

    def with_execution(self, **switches: Any) -> GenerationConfig:
        """A copy with these execution switches set, and no longer `auto`."""
        execution, left_open = replace(self.execution, **switches), self.open_switches - switches.keys()
        return replace(self, execution=execution, open_switches=left_open)


def resolve(request: Request) -> GenerationConfig:
    """Resolve everything that needs no weights, so that invalid values fail early. Raises: UsageError, DeviceError."""
    check_sampling(request)
    spec, schedule = request.spec, build_schedule(request)
    seconds = request.frame_count / spec.fps
    check_timeline(bool(request.prompt), request.timeline, request.blend, seconds)
    execution = resolve_execution(request)
    prompts = format_prompts(request) if request.prompt or not request.extension else (Prompt(""),)
    config = GenerationConfig(
        prompt=request.prompt,
        formatted_prompt=prompts[0],
        timeline=request.timeline,
        blend=request.blend,
        forever=request.forever,
        formatted_timeline=prompts[1:],
        video_model=request.video_model,
        spec=spec,
        schedule=schedule,
        execution=execution,
        seed=request.seed,
        frames=request.frame_count,
        method=request.method,
        **resolve_counts(request),
        context=resolve_context(request),
        ramp_up=request.ramp_up,
        stride=request.stride,
        solver=request.solver or request.spec.solver,
        guidance=resolve_guidance(request),
        warmup=resolve_warmup(request),
        reencode=requests_reencoding(request, schedule) and aligns_with_vae_units(request, schedule),
        edit_ratio=request.edit_ratio,
        loop=request.loop,
        sink=request.sink,
        repeat_positions=request.repeat_positions,
        lora=request.lora,
        source_caption=request.source_caption,
        options=_options(request),
        notes=(*_prompt_notes(request, prompts), *_notes(request, schedule, execution)),
        open_switches=frozenset(name for name in PLANNED_SWITCHES if getattr(request.execution, name) == "auto"),
    )
    check_reachable(config.timeline, range(config.warmup, config.total_chunks), config.start_of)
    return make_loop(config) if request.loop else config


PLANNED_SWITCHES = ("cfg_batching", "overlap_decode", "vae_tiling")  # what a memory plan may change


def resolve_execution(request: Request) -> ExecutionConfig:
    """Resolve `auto` in the execution switches to the fastest choice; a memory plan may change that later.

    Raises: UsageError, DeviceError.
    """
    import torch

    from pavdm_cli.attention import check_backend, machine_of
    from pavdm_cli.models.devices import pick_device

    requested, spec = request.execution, request.spec
    device = pick_device(requested.device)
    check_backend(requested.attention, machine_of(device))
    reuse = spec.causal if requested.context_cache == "auto" else requested.context_cache == "reuse"
    overlap_decode = device.type == "cuda" and requested.offload == "none"  # on a CPU, both would compete for cores
    return replace(
        requested,
        device=device.type,
        threads=requested.threads or torch.get_num_threads(),
        precision=_precision(request, device),
        context_cache="reuse" if reuse and request.method != "rw" else "recompute",
        cfg_batching="batched" if requested.cfg_batching == "auto" else requested.cfg_batching,
        vae_tiling="off" if requested.vae_tiling == "auto" else requested.vae_tiling,
        overlap_decode=("on" if overlap_decode else "off")
        if requested.overlap_decode == "auto"
        else requested.overlap_decode,
    )


def _options(request: Request) -> dict[str, Any]:
    from pavdm_cli.models.devices import pick_device

    name = request.options.get("text_device")
    return {**request.options} | ({"text_device": pick_device(name, "--text-device").type} if name else {})


def _precision(request: Request, device: torch.device) -> str:
    precision, choices = request.execution.precision, request.spec.precisions_on(device.type)
    if precision not in ("auto", *choices):
        known = " or ".join(choices)
        raise UsageError(
            f"--precision of {request.spec.name} must be {known} here, got {precision!r}", "omit --precision"
        )
    return choices[0] if precision == "auto" else precision


def _prompt_notes(request: Request, prompts: tuple[Prompt, ...]) -> list[str]:
    if request.extension and not request.prompt:
        return ["no prompt: the continuation is unconditional; use --prompt to describe it"]
    return [note for prompt in prompts for note in prompt.notes]


def _notes(request: Request, schedule: Schedule, execution: ExecutionConfig) -> list[str]:
    spec = request.spec
    notes = [schedule.note] if schedule.note else []
    if requests_reencoding(request, schedule) and not aligns_with_vae_units(request, schedule):
        notes.append(f"clips are conditioned on latents without re-encoding: {unit_reason(request)}")
    if execution.compile:
        from pavdm_cli.models.torch_compile import NOTE

        notes.append(NOTE)
    if execution.context_cache == "reuse" and not spec.causal:
        notes.append(
            f"{spec.name} was trained with bidirectional attention: --context-cache reuse is an approximation; "
            "`pavdm bench throughput --context-cache reuse` measures its error"
        )
    if request.method != spec.method and spec.tuned:
        notes.append(f"{spec.name} was trained for {spec.method}; {request.method} is meant for comparison")
    return notes
