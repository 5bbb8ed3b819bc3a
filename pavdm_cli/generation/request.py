"""All that a user asked for, in values that are validated once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.timeline import PromptChange, timeline_of
from pavdm_cli.models.adapter import Options, VideoModel
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.registry import DEFAULT, find
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.validation import check_name, check_text
from pavdm_cli.sampling.schedule import RAMP_UPS, SOLVERS

LONGEST = 24 * 3600.0  # seconds of video in one run
FOREVER = 10**9  # frames that a video without an end never reaches
SIZES = {"144p": (144, 256), "240p": (240, 424), "360p": (360, 640), "480p": (480, 848)}
SIZES |= {"540p": (544, 960), "720p": (720, 1280)}

MOST_WARMUP = 100  # chunks
MOST_CONTEXT = 64  # chunks
MOST_SCALE = 8
SCALE_FILTERS = ("lanczos", "nearest")
STDOUT = Path("-")
STREAM_FORMATS = ("mp4", "y4m", "rawvideo")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the video goes and how it is written."""

    path: Path | None = None
    crf: int = 18
    force: bool = False
    ffmpeg: str = ""  # an external ffmpeg to use
    encoder: str = ""  # one of its encoders, for example h264_nvenc; empty: those that need no ffmpeg
    scale: int | None = None  # by how much frames are enlarged; None: the model's own
    scale_filter: str = "lanczos"
    keep_state: bool = False  # the checkpoint outlives the video's completion
    stream_format: str = ""  # to standard output: mp4 unless given

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise UsageError(f"--crf must be 0 to 51, got {self.crf}", "18 is nearly lossless, 28 small")
        if self.scale is not None and not 1 <= self.scale <= MOST_SCALE:
            raise UsageError(f"--scale must be 1 to {MOST_SCALE}, got {self.scale}", "1 keeps the model's own size")
        check_name("--scale-filter", self.scale_filter, SCALE_FILTERS)
        check_name("--stream-format", self.stream_format, ("", *STREAM_FORMATS))

    @property
    def to_stdout(self) -> bool:
        """Whether the video goes to standard output instead of a file."""
        return self.path == STDOUT

    def scale_of(self, spec: ModelSpec) -> int:
        """By how much frames of a model are enlarged."""
        return spec.scale if self.scale is None else self.scale


@dataclass(frozen=True, slots=True)
class Extension:
    """The video to continue, and what the new one keeps of it."""

    source: Path
    start: Literal["clip", "noised"] = "clip"  # its last chunk stays clean, or its last window is noised (algorithm 1)
    only_new: bool = False
    audio: Literal["keep", "silence", "drop"] = "keep"

    def __post_init__(self) -> None:
        check_name("--start", self.start, ("clip", "noised"))
        check_name("--audio", self.audio, ("keep", "silence", "drop"))


@dataclass(frozen=True, slots=True)
class Redo:
    """A video, and the span of it to make again, in seconds from its start."""

    source: Path
    start: float = 0.0
    end: float | None = None  # None: that of the video
    in_place: bool = False  # the new video replaces the old one once it is complete


@dataclass(frozen=True, slots=True)
class Request:
    """One video: what it shows, how long it is, how it is made and written. None stands for the model's own value.

    Raises: UsageError, ModelError.
    """

    prompt: str
    seconds: float | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None  # pixels, height and width
    fps: float | None = None
    model: str = DEFAULT
    seed: int = 0
    method: str = "pa"
    steps: int | None = None
    window: int | None = None
    chunk: int | None = None
    context: int | None = None  # clean chunks right before the window
    sink: int = 0  # first chunks of the video that stay in front of them
    repeat_positions: bool = False  # of more than one clean chunk, so that none leaves those of training
    guidance: float | None = None
    solver: str | None = None
    ramp_up: str = "grow"  # or "full": chunks that have not started are shown as noise
    loop: bool = False  # the video ends where it begins
    stride: int = 0  # of the method `windows`: steps between chunks; 0: all at once
    warmup: int | None = None  # chunks generated before the video and dropped
    lora: tuple[str, ...] = ()  # files, each with :SCALE or without
    reencode: bool | None = None  # clip after clip, from decoded frames; None: where the model's own extension does
    edit_ratio: float = 0.0  # how far the shown end of a clip is noised and made again, as a share of the noise range
    options: Options = field(default_factory=dict)  # the model's own, as far as they differ from their defaults
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    output: Output = field(default_factory=Output)
    extension: Extension | None = None
    image: Path | None = None  # the image that the video begins with
    redo: Redo | None = None
    source_caption: str = ""  # of the video that is continued, for what the prompt leaves out
    timeline: tuple[PromptChange, ...] = ()  # later prompts, in order
    blend: float = 0.0  # seconds over which each of them replaces the one before
    forever: bool = False  # until it is stopped, or cut after `frames`: without a ramp-down

    def __post_init__(self) -> None:
        check_text("the prompt", self.prompt)
        check_name("--ramp-up", self.ramp_up, RAMP_UPS)
        check_name("--solver", self.solver or SOLVERS[0], SOLVERS)
        spec = self.spec
        if self.seconds is not None and self.frames is not None:
            raise UsageError("--seconds and --frames were both given", "give one of them")
        if self.frame_count < 1 or (self.frame_count > LONGEST * spec.fps and not self.forever):
            length = f"{self.frames} frames" if self.seconds is None else f"{self.seconds:g} s, {spec.fps} frames/s"
            raise UsageError(f"cannot make a video of {length}", "ask for 1 frame to 24 hours")
        self._check_warmup()
        spec.check_scale(self.output.scale_of(spec))

    def _check_warmup(self) -> None:
        if self.warmup is not None and not 0 <= self.warmup <= MOST_WARMUP:
            raise UsageError(f"--warmup must be 0 to {MOST_WARMUP} chunks, got {self.warmup}", "0 drops none")
        if self.continues and self.warmup:
            raise UsageError(
                "--warmup is for a video that begins with noise, and this one begins with given frames", "leave it out"
            )

    @property
    def continues(self) -> bool:
        """Whether the first chunk follows given frames, a clip or an image."""
        return self.extension is not None or self.image is not None

    @property
    def video_model(self) -> VideoModel:
        """Raises: ModelError."""
        return find(self.model)

    @property
    def spec(self) -> ModelSpec:
        """The model's, at the size and rate of the video. Raises: UsageError."""
        spec = self.video_model.spec
        size, fps = self.size or spec.size, spec.fps if self.fps is None else self.fps
        spec.check_size(size)
        spec.check_fps(fps)
        return replace(spec, size=size, fps=int(fps))

    @property
    def endless(self) -> bool:
        """Whether the video goes on until it is stopped."""
        return self.forever and self.frames in (None, FOREVER)

    @property
    def frame_count(self) -> int:
        """Frames to make."""
        if self.frames is not None or self.forever:
            return FOREVER if self.frames is None else self.frames
        seconds = 10.0 if self.seconds is None else self.seconds
        return round(seconds * self.spec.fps) if abs(seconds) < 1e9 else -1


def build_request(values: Mapping[str, Any]) -> Request:
    """A request from flat values, named as the options of the command line; the model's own options are among them.

    Unknown names are ignored: a command has options that concern no video. Raises: UsageError, ModelError, InputError.
    """
    defaults = {option.key: option.default for option in find(values.get("model", DEFAULT)).options}
    typed = {key: values[key] for key in defaults if values.get(key) is not None}
    options = {key: value for key, value in typed.items() if value != defaults[key]}
    own = {name: value for name, value in values.items() if name in names_of(Request)}
    if own.get("seconds") == "forever":
        own |= {"seconds": None, "forever": True}
    own |= {"lora": tuple(own.get("lora") or ()), "timeline": timeline_of(values.get("at"), values.get("timeline"))}
    parts = {"execution": _part(ExecutionConfig, values), "output": _part(Output, values)}
    return Request(**parts | {"options": options} | own)


def flat_values(request: Request) -> dict[str, Any]:
    """What `build_request` builds the request from again, as far as it concerns the frames of a new video."""
    own = names_of(Request) - {"options", "execution", "output", "extension", "image", "redo", "source_caption"}
    return {name: getattr(request, name) for name in own} | asdict(request.execution) | dict(request.options)


def _part(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{name: value for name, value in values.items() if name in names_of(kind)})


@cache
def names_of(kind: type[Any]) -> frozenset[str]:
    """Of a dataclass's fields."""
    return frozenset(one.name for one in fields(kind))


def parse_size(text: str, aspect: str = "") -> tuple[int, int]:
    """'WxH', or the name of a height, to (height, width); `aspect` shapes a named size. Raises: UsageError."""
    if aspect and text.lower() not in SIZES:
        raise UsageError(f"--aspect shapes a size by name, and --size is {text}", f"name one: {', '.join(SIZES)}")
    if text.lower() in SIZES:
        return shaped(SIZES[text.lower()], aspect) if aspect else SIZES[text.lower()]
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--size must be WIDTHxHEIGHT or {', '.join(SIZES)}, got {text!r}", "for example --size 96x64")
    return int(height), int(width)


def shaped(size: tuple[int, int], aspect: str) -> tuple[int, int]:
    """About as many pixels as `size` (height, width), its sides as 'W:H' in multiples of 8. Raises: UsageError."""
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", aspect)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not width or not height or not 1 / 4 <= width / height <= 4:
        raise UsageError(f"--aspect must be WIDTH:HEIGHT from 1:4 to 4:1, got {aspect!r}", "for example --aspect 9:16")
    side = math.sqrt(size[0] * size[1] / (width * height))
    return 8 * round(height * side / 8), 8 * round(width * side / 8)


def frame_size(size: str | None, aspect: str, spec: ModelSpec) -> tuple[int, int] | None:
    """What --size and --aspect ask for, a shape alone of 240p; by name the nearest that the model can make.

    Raises: UsageError.
    """
    if not (size or aspect):
        return None
    parsed = parse_size(size or "240p", aspect)
    named = aspect or (size or "").lower() in SIZES
    return spec.nearest_size(parsed) if named and spec.size_multiple else parsed
