"""What a model is, as data: sizes, weights, options of its own, and what it was trained for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pavdm_cli.errors import UsageError

LARGEST = (4320, 8192)  # height and width of an enlarged frame


@dataclass(frozen=True, slots=True)
class WeightPart:
    """Published weights of one part of a model."""

    folder: str  # below the model's own
    repo: str
    revision: str  # a full commit, or a branch whose commit is looked up when it is fetched
    text: bool = False  # needed only where a prompt is encoded
    paths: tuple[str, ...] = ("",)  # folders of the repository that hold its files


@dataclass(frozen=True, slots=True)
class ModelOption:
    """An option of the command line that one model adds: the CLI, metadata and `info` are built from it."""

    name: str  # as on the command line, without the dashes
    type: Any  # float, str, bool or an optional of one
    default: Any
    help: str
    changes_frames: bool = True
    choices: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda value: None  # raises UsageError

    @property
    def key(self) -> str:
        """Its name in Python and in `Options`."""
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class IgnoredOption:
    """An option of the command line that has no effect with a model."""

    option: str
    why: str
    instead: str = ""  # what to do; empty where the video is as asked for all that, and a note is enough


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the matmul rate that the parts of a job reach, and how far off an estimate may be."""

    denoise: float
    decode: float
    spread: float  # a job takes between 1 / spread and spread times the estimate
    measured: bool


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model was trained for, and where its weights are."""

    name: str
    about: str
    licence: str
    folder: Path  # of its weights; one that is not absolute is in the folder of downloaded models
    size: tuple[int, int]  # pixels, height and width
    fps: int
    window: int  # noisy latents
    chunk: int  # latents
    steps: int  # of sampling, unless asked otherwise
    trained_steps: int  # the levels it was trained at: sampling may take every second or third of them
    guidance: float  # of sampling, unless asked otherwise
    method: str  # the one it was trained for
    solver: str = "euler"  # of sampling, unless asked otherwise
    first_chunk: int = 0  # latents of a video's first chunk; 0: as many as of the others
    size_multiple: int = 0  # both sides are multiples of this; 0: `size` and no other
    max_side: int = 0  # pixels
    fps_range: tuple[int, int] = (0, 0)  # slowest and fastest; (0, 0): `fps` and no other
    frame_rates: tuple[int, ...] = ()  # all there are, where not every one in the range
    context: int = 1  # clean chunks in front of the window, unless asked otherwise
    world: str = ""  # all it knows, where that is little
    tuned: bool = True  # for its method
    reencodes: bool = False  # clip after clip, the end of one is decoded and encoded again for the next
    parts: tuple[WeightPart, ...] = ()  # what is fetched; none: the weights come with the package
    files: tuple[str, ...] = ()  # by which a folder is known to hold this model
    architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)  # the same, by part
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)  # by device, default first
    distilled_guidance: float = 1.0  # CFG scale distilled into a single pass; 1: none (Meng et al. 2023)
    # Values of a configuration, by part, that tell this model from others of the same architecture.
    distinguishing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    empty_prompt: bool = False  # trained with an empty prompt for none, which is encoded
    lora: bool = False  # whether LoRA files can be merged into its transformer
    terms: str = ""  # what one has to agree to before its weights are fetched
    # |latent| beyond which something failed: variance is 1, data stay below 8, and guidance of 100 made some of 42.
    latent_limit: float = 100.0
    warmup: int = 0  # chunks generated and dropped first: those made while the window fills are the weakest
    scale: int = 1  # its frames are enlarged by this in a file, unless asked otherwise
    causal: bool = True  # trained so that clean frames see only clean ones: their keys and values are cached exactly
    ignored: tuple[IgnoredOption, ...] = ()
    efficiency: Mapping[str, Efficiency] = field(default_factory=dict, compare=False)  # by device and precision

    @property
    def bundled(self) -> bool:
        """Whether its weights come with the package; such a model fits into any memory."""
        return not self.parts

    def precisions_on(self, device: str) -> tuple[str, ...]:
        """Precisions of matmuls that it has on this kind of device, its own first."""
        return self.precisions.get(device) or self.precisions[""]

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a size (height, width) the model cannot make. Raises: UsageError."""
        height, width = self.size
        own, asked, grid = f"{width}x{height}", f"{size[1]}x{size[0]}", self.size_multiple
        if not grid and size != self.size:
            raise UsageError(f"{self.name} makes {own} pixels, got {asked}", f"use --size {own}")
        if grid and size != (fits := self.fitting(size)):
            sides = f"sides of {8 * grid} to {self.max_side} in multiples of {grid}"
            raise UsageError(f"{self.name} makes {sides}, got {asked}", f"try --size {fits[1]}x{fits[0]}")

    def fitting(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of about the same shape that the model can make: as large where it can be, else its largest."""
        least, grid = 8 * self.size_multiple, self.size_multiple
        scale = min(max(1, least / max(1, min(size))), self.max_side / max(1, *size))
        height, width = (min(max(least, grid * round(side * scale / grid)), self.max_side) for side in size)
        return height, width

    def check_scale(self, factor: int) -> None:
        """Refuse a factor that enlarges frames beyond what can be read again. Raises: UsageError."""
        height, width = (side * factor for side in self.size)
        if factor > 1 and (height > LARGEST[0] or width > LARGEST[1]):
            most = f"{LARGEST[1]}x{LARGEST[0]} is the most"
            raise UsageError(f"--scale {factor} makes {width}x{height} pixels: {most}", "give a smaller one")

    def check_fps(self, fps: float) -> None:
        """Refuse frames per second the model cannot make. Raises: UsageError."""
        if self.frame_rates and fps not in self.frame_rates:
            rates = " or ".join(map(str, self.frame_rates))
            raise UsageError(f"{self.name} makes {rates} frames/s, got {fps:g}", f"use --fps {self.fps}")
        slowest, fastest = self.fps_range if any(self.fps_range) else (self.fps, self.fps)
        if not slowest <= fps <= fastest or fps % 1:
            rates = f"{slowest}" if slowest == fastest else f"{slowest} to {fastest} whole"
            raise UsageError(f"{self.name} makes {rates} frames/s, got {fps:g}", f"use --fps {self.fps}")
