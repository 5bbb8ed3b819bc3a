"""`GenerationConfig`, which holds every decision for a video. Imports no torch: it describes stored metadata too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pavdm_cli.generation.checks import graph_conflict
from pavdm_cli.generation.request import ENDLESS_FRAMES, MAX_CONTEXT, MAX_WARMUP
from pavdm_cli.generation.timeline import MAX_BLEND, TIMELINE_KIND, PromptChange
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
    timeline: tuple[PromptChange, ...] = field(default=(), metadata=changes_frames(TIMELINE_KIND))  # later prompts
    blend: float = field(default=0.0, metadata=changes_frames(number(0, MAX_BLEND)))  # seconds
    formatted_timeline: tuple[Prompt, ...] = ()  # as `formatted_prompt`
    forever: bool = field(default=False, metadata=changes_frames(FLAG))  # without a ramp-down, until it is stopped
    loop: bool = field(default=False, metadata=changes_frames(FLAG))  # the last chunks are conditioned on the first
    sink: int = field(default=0, metadata=changes_frames(integer(0, MAX_CONTEXT)))  # first chunks kept in context
    repeat_positions: bool = False
    lora: tuple[str, ...] = ()  # "FILE" or "FILE:SCALE"
    source_caption: str = ""  # of the extended video; fills in what the prompt leaves out
    options: Options = field(default_factory=dict)  # model-specific options that differ from their defaults
    notes: tuple[str, ...] = ()
    # Switches of `execution` that were `auto`; a memory plan may change them.
    auto_switches: frozenset[str] = frozenset()
    num_conditioning_frames: int = 0  # conditioning frames (clip or image) that are encoded before the first step
    num_kept_chunks: int = 0  # at the end of a redone span: not sampled, but decoded again from their old latents

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

    def without_warmup(self) -> GenerationConfig:
        """The configuration for a start from existing latents: chunks are counted from the first one of the video."""
        changes = ((change - self.warmup, start - self.warmup) for change, start in self.schedule.sink_changes)
        schedule = replace(self.schedule, sink=range(len(self.schedule.sink)), sink_changes=tuple(changes))
        return replace(self, warmup=0, schedule=schedule)

    def chunk_start(self, chunk: int) -> Fraction:
        """Time at which a chunk starts, in seconds; negative in the warm-up."""
        return Fraction(self.frames_before(chunk - self.warmup), self.spec.fps)

    def latents_before(self, chunk: int) -> int:
        """Number of latents before a chunk of the video, whose first one is 0; negative in the warm-up."""
        first, start = (
            self.schedule.latents(range(index, index)).start for index in (self.warmup, self.warmup + chunk)
        )
        return start - first

    def frames_before(self, chunk: int) -> int:
        """Number of generated frames before a chunk; arguments as for `latents_before`."""
        latents = self.latents_before(chunk)
        return self.layout.frame_range(latents, latents, self.continues_stream).start

    @property
    def chunks(self) -> int:
        """Number of chunks in the video; the last may be truncated."""
        return self.schedule.chunks(self.layout.num_latents(self.frames, self.continues_stream))

    @property
    def endless(self) -> bool:
        """Whether the video runs until it is stopped."""
        return self.forever and self.frames == ENDLESS_FRAMES

    @property
    def chunks_to_sample(self) -> int | None:
        """Number of chunks to sample, those of the warm-up included; None: no last chunk is known, so no ramp-down."""
        return None if self.forever else self.total_chunks - self.num_kept_chunks

    @property
    def total_chunks(self) -> int:
        """Chunks of the video and of the warm-up."""
        return self.warmup + self.chunks

    @property
    def warmup_frames(self) -> int:
        """Frames that the warm-up chunks correspond to."""
        return int(self.warmup * self.frames_per_chunk)

    @property
    def total_steps(self) -> int:
        """Total number of denoising steps."""
        return self.schedule.total_steps(self.total_chunks - self.num_kept_chunks)

    def with_execution(self, **switches: Any) -> GenerationConfig:
        """A copy with these execution switches set, and no longer `auto`."""
        execution, open_switches = replace(self.execution, **switches), self.auto_switches - switches.keys()
        return replace(self, execution=execution, auto_switches=open_switches)
