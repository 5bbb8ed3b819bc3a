"""A model as data: sizes, weights, options of its own, and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pavdm_cli.errors import UsageError
from pavdm_cli.sampling.right_context import DEFAULT_JOIN, JoinConfig

MAX_UPSCALED_SIZE = (4320, 8192)  # height and width of an upscaled frame


OPEN_DOMAIN_PROMPTS = (  # examples for models without a world of their own
    "a tram in the snow, seen from the street",
    "waves breaking on a rocky shore at dusk",
)


@dataclass(frozen=True, slots=True)
class WeightPart:
    """The published weights of one part of a model."""

    folder: str  # inside the model's folder
    repo: str
    revision: str  # a full commit, or a branch, which is resolved when it is downloaded
    text: bool = False  # whether only the encoding of prompts needs it
    paths: tuple[str, ...] = ("",)  # folders of its files in the repository


@dataclass(frozen=True, slots=True)
class ModelOption:
    """A command-line option that a model adds; the CLI, metadata and `info` are built from it."""

    name: str  # on the command line, without the leading dashes
    type: Any  # float, str, bool or an optional of one
    default: Any
    help: str
    changes_frames: bool = True
    choices: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda value: None  # raises UsageError

    @property
    def key(self) -> str:
        """The name in Python and in `Options`."""
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class IgnoredOption:
    """A command-line option that has no effect with a model."""

    flag: str  # with its dashes
    reason: str
    hint: str = ""  # what to do instead; empty: the option is ignored with a note

    @property
    def key(self) -> str:
        """The name in Python, as `ModelOption.key`."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Model FLOPs utilization (MFU) of each stage, and the error bound of a time estimate."""

    denoise: float
    decode: float
    error_factor: float  # a video takes between 1 / error_factor and error_factor times the estimate
    measured: bool


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model supports, its defaults, and where its weights are."""

    name: str
    description: str
    license: str
    folder: Path  # where its weights are; a relative path is below the folder of downloaded models
    size: tuple[int, int]  # default height and width in pixels
    fps: int  # default frames per second
    window: int  # default window size in noisy latents
    chunk: int  # default chunk size in latents
    steps: int  # default denoising steps; a multiple of window / chunk, or a divisor of it
    trained_steps: int  # noise levels of training: sampling may use every second or third
    guidance: float  # default guidance scale
    method: str  # default method
    solver: str = "euler"  # default solver
    first_chunk: int = 0  # latents of a video's first chunk; 0: `chunk`
    size_multiple: int = 0  # number that both sides are multiples of; 0: only `sizes`
    sizes: tuple[tuple[int, int], ...] = ()  # supported sizes; none: only `size`
    max_side: int = 0  # longest supported side in pixels
    fps_range: tuple[int, int] = (0, 0)  # lowest and highest; (0, 0): only `fps`
    frame_rates: tuple[int, ...] = ()  # supported rates in `fps_range`; none: every whole number
    context: int = 1  # default number of clean chunks in front of the window
    sink: int = 0  # default number of first chunks that stay in front of the context (attention sink)
    world: str = ""  # the only kind of content it can generate, if limited
    example_prompts: tuple[str, ...] = ()
    tuned: bool = True  # whether it was trained for its default method
    reencodes: bool = False  # default of --reencode: whether the context is decoded and encoded again between clips
    parts: tuple[WeightPart, ...] = ()  # weights to download; none: they are bundled with the package
    files: tuple[str, ...] = ()  # names that identify the model in a folder
    # Architectures that identify it in a folder, by part: `_class_name`, `model_type` or an entry of `architectures`
    # in the part's config.json, in upper or lower case.
    architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    # By device, default first; "": other devices.
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"": ("fp32",)}, compare=False)
    distilled_guidance: float = 1.0  # CFG scale distilled into a single pass; 1: none (Meng et al. 2023)
    # Values in the configuration of a part that distinguish this model from others of the same architecture.
    distinguishing_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    empty_prompt: bool = False  # whether an empty prompt is encoded, as in training, instead of none
    lora: bool = False  # whether LoRA files can be merged into its transformer
    compile: bool = False  # whether its denoiser compiles the transformer for --compile
    terms: str = ""  # license terms that must be accepted before the download
    # |latent| above this is an error: the variance is 1, data stay below 8, and guidance of 100 reached 42.
    latent_limit: float = 100.0
    warmup: int = 0  # chunks generated and dropped first, since quality is lowest while the window fills
    join: JoinConfig = DEFAULT_JOIN  # how a loop leads into its start, and a regenerated span into what follows
    scale: int = 1  # default upscaling factor of its frames in files
    causal: bool = True  # whether clean latents attend only to clean ones in training: the context cache is exact
    ignored: tuple[IgnoredOption, ...] = ()
    efficiency: Mapping[str, Efficiency] = field(default_factory=dict, compare=False)  # by device and precision

    @property
    def is_bundled(self) -> bool:
        """Whether its weights are part of the package; such a model fits into any memory."""
        return not self.parts

    @property
    def is_resizable(self) -> bool:
        """Whether it makes more than one size."""
        return bool(self.size_multiple or self.sizes)

    def at(self, size: tuple[int, int], fps: int) -> ModelSpec:
        """The spec for videos of a size and frame rate; of several `sizes`, all give files of the same size."""
        scale = self.scale * self.size[0] // size[0] if self.sizes else self.scale
        return replace(self, size=size, fps=fps, scale=scale)

    def precisions_on(self, device: str) -> tuple[str, ...]:
        """Matmul precisions on this type of device, the default first."""
        return self.precisions.get(device) or self.precisions[""]

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a size (height, width) that the model does not support. Raises: UsageError."""
        height, width = self.size
        own, typed, grid = f"{width}x{height}", f"{size[1]}x{size[0]}", self.size_multiple
        if not grid and size not in (supported := self.sizes or (self.size,)):
            sizes = " or ".join(f"{width}x{height}" for height, width in supported)
            raise UsageError(f"{self.name} supports {sizes}, got {typed}", f"use --size {own}")
        if grid and size != (fits := self.nearest_size(size)):
            sides = f"sides of {8 * grid} to {self.max_side} pixels in multiples of {grid}"
            raise UsageError(f"{self.name} supports {sides}, got {typed}", f"try --size {fits[1]}x{fits[0]}")

    def nearest_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The supported size nearest to a size, with about the same aspect ratio."""
        min_side, grid = 8 * self.size_multiple, self.size_multiple
        scale = min(max(1, min_side / max(1, min(size))), self.max_side / max(1, *size))
        height, width = (min(max(min_side, grid * round(side * scale / grid)), self.max_side) for side in size)
        return height, width

    def check_scale(self, factor: int) -> None:
        """Reject an upscaling factor beyond the largest frame that can be read back. Raises: UsageError."""
        height, width = (side * factor for side in self.size)
        if factor > 1 and (height > MAX_UPSCALED_SIZE[0] or width > MAX_UPSCALED_SIZE[1]):
            limit = f"the maximum is {MAX_UPSCALED_SIZE[1]}x{MAX_UPSCALED_SIZE[0]}"
            raise UsageError(f"--scale {factor} makes {width}x{height} pixels: {limit}", "use a smaller factor")

    def check_fps(self, fps: float) -> None:
        """Reject frames per second that the model does not support. Raises: UsageError."""
        if self.frame_rates and fps not in self.frame_rates:
            rates = f"{' or '.join(map(str, self.frame_rates))} fps"
            raise UsageError(f"{self.name} supports {rates}, got {fps:g}", f"use --fps {self.fps}")
        slowest, fastest = self.fps_range if any(self.fps_range) else (self.fps, self.fps)
        if not slowest <= fps <= fastest or fps % 1:
            rates = f"{slowest} fps" if slowest == fastest else f"{slowest} to {fastest} fps (integers only)"
            raise UsageError(f"{self.name} supports {rates}, got {fps:g}", f"use --fps {self.fps}")
