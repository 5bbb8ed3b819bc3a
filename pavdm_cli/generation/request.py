"""What the user asked for, validated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.timeline import FOREVER, PromptChange, check_prompt, parse_seconds, parse_timeline
from pavdm_cli.models.adapter import Options, VideoModel
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.registry import DEFAULT, find
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.untrusted import summarize
from pavdm_cli.runtime.validation import check_name
from pavdm_cli.sampling.schedule import RAMP_UPS, SOLVERS

DEFAULT_SECONDS = 10.0  # length of a video or a continuation
MAX_SECONDS = 24 * 3600.0  # seconds of video in one run
ENDLESS_FRAMES = 10**9  # frame count that stands for an endless video
SIZES = {"144p": (144, 256), "240p": (240, 424), "360p": (360, 640), "480p": (480, 848)}
SIZES |= {"540p": (544, 960), "720p": (720, 1280)}

MAX_WARMUP = 100  # chunks
MAX_CONTEXT = 64  # chunks
MAX_SCALE = 8
SCALE_FILTERS = ("lanczos", "nearest")
STDOUT_PATH = Path("-")
STREAM_FORMATS = ("mp4", "y4m", "rawvideo")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the video goes and how it is written."""

    path: Path | None = None
    crf: int = 18
    force: bool = False
    ffmpeg: str = ""  # an external ffmpeg to use
    encoder: str = ""  # an ffmpeg encoder such as h264_nvenc; empty: PyAV's own
    scale: int | None = None  # integer upscaling factor; None: the model's default
    scale_filter: str = "lanczos"
    keep_state: bool = False  # keep the checkpoint after the video is complete
    stream_format: str = ""  # for -o -; default mp4

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise UsageError(f"--crf must be 0 to 51, got {self.crf}", "18 is visually lossless, 28 gives small files")
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"--scale must be 1 to {MAX_SCALE}, got {self.scale}", "1 keeps the model's native size")
        check_name("--scale-filter", self.scale_filter, SCALE_FILTERS)
        check_name("--stream-format", self.stream_format, ("", *STREAM_FORMATS))

    @property
    def is_stdout(self) -> bool:
        """Whether the video goes to standard output instead of a file."""
        return self.path == STDOUT_PATH

    def resolve_scale(self, spec: ModelSpec) -> int:
        """The upscaling factor for a model's frames."""
        return spec.scale if self.scale is None else self.scale


@dataclass(frozen=True, slots=True)
class Extension:
    """Which video to extend, and how."""

    source: Path
    start: Literal["clip", "noised"] = "clip"  # clean last chunk, or re-noised last window (algorithm 1)
    only_new: bool = False
    audio: Literal["keep", "silence", "drop"] = "keep"

    def __post_init__(self) -> None:
        check_name("--start", self.start, ("clip", "noised"))
        check_name("--audio", self.audio, ("keep", "silence", "drop"))


@dataclass(frozen=True, slots=True)
class RedoOptions:
    """The span of a video to regenerate, in seconds."""

    source: Path
    start: float = 0.0
    end: float | None = None  # None: the end of the video
    in_place: bool = False  # replace the old file once the new one is complete


@dataclass(frozen=True)  # without slots, for `cached_property`
class Request:
    """Everything the user asked for in one video. None: the model's default.

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
    sink: int | None = None  # first chunks of the video that stay in the context (attention sink)
    repeat_positions: bool = False  # repeat RoPE positions in a long context, so that none exceeds the trained range
    guidance: float | None = None
    solver: str | None = None
    ramp_up: str = "grow"  # "grow" or "full": whether chunks that have not started are in the window as noise
    loop: bool = False  # seamless loop
    stride: int = 0  # method `windows` only: steps between chunks; 0: one level per window
    warmup: int | None = None  # chunks generated before the video and dropped
    lora: tuple[str, ...] = ()  # "FILE" or "FILE:SCALE"
    reencode: bool | None = None  # rn: condition on re-encoded frames of the previous clip; None: the model's default
    edit_ratio: float = 0.0  # rn: sigma at and below which the conditioning latents are denoised too
    options: Options = field(default_factory=dict)  # model-specific options that differ from their defaults
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    output: Output = field(default_factory=Output)
    extension: Extension | None = None
    image: Path | None = None  # the image that the video begins with
    redo: RedoOptions | None = None
    source_caption: str = ""  # caption of the extended video; fills in what the prompt leaves out
    timeline: tuple[PromptChange, ...] = ()  # later prompts, in order
    blend: float = 0.0  # seconds over which to blend from one prompt to the next
    forever: bool = False  # endless, or cut off after `frames`; no ramp-down

    def __post_init__(self) -> None:
        check_prompt("the prompt", self.prompt)
        check_name("--ramp-up", self.ramp_up, RAMP_UPS)
        check_name("--solver", self.solver or SOLVERS[0], SOLVERS)
        spec = self.spec
        if self.seconds is not None and self.frames is not None:
            hint = "use only one; with --seconds forever, --frames sets where to stop"
            raise UsageError("--seconds and --frames cannot be combined", hint)
        counts_file_frames = self.frames is not None and (self.extension or self.redo)  # at the file's own rate
        is_limited = not (self.forever or counts_file_frames)
        if not 1 <= self.frame_count <= (MAX_SECONDS * spec.fps if is_limited else ENDLESS_FRAMES):
            length = f"--frames {self.frames}" if self.seconds is None else f"--seconds {self.seconds:g}"
            hint = f"for example --seconds {DEFAULT_SECONDS:g}"
            raise UsageError(f"{length} is not a length from 1 frame to 24 hours at {spec.fps} fps", hint)
        self._check_warmup()
        spec.check_scale(self.output.resolve_scale(spec))

    def _check_warmup(self) -> None:
        if self.warmup is not None and not 0 <= self.warmup <= MAX_WARMUP:
            raise UsageError(f"--warmup must be 0 to {MAX_WARMUP} chunks, got {self.warmup}", "0 disables the warm-up")
        if self.starts_from_frames and self.warmup:
            raise UsageError(
                "--warmup cannot be used with --image or extend: the video starts from existing frames", "omit --warmup"
            )

    @property
    def starts_from_frames(self) -> bool:
        """Whether the video starts from existing frames: a clip or an image."""
        return self.extension is not None or self.image is not None

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: the cached model cannot be pickled."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def video_model(self) -> VideoModel:
        """The model, recognized once if it is a folder. Raises: ModelError."""
        return find(self.model)

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's spec at this video's size and frame rate. Raises: UsageError."""
        spec = self.video_model.spec
        size, fps = self.size or spec.size, spec.fps if self.fps is None else self.fps
        spec.check_size(size)
        spec.check_fps(fps)
        return spec.at(size, int(fps))

    @property
    def endless(self) -> bool:
        """Whether the video continues until it is stopped."""
        return self.forever and self.frames in (None, ENDLESS_FRAMES)

    @property
    def frame_count(self) -> int:
        """Number of frames to generate."""
        if self.frames is not None or self.forever:
            return ENDLESS_FRAMES if self.frames is None else self.frames
        seconds = DEFAULT_SECONDS if self.seconds is None else self.seconds
        return round(seconds * self.spec.fps) if abs(seconds) < 1e9 else -1


def build_request(values: Mapping[str, Any]) -> Request:
    """Build a request from flat option values, including model-specific options.

    Unknown names are ignored, such as options that only affect what a command prints.

    Raises: UsageError, ModelError, InputError.
    """
    defaults = {option.key: option.default for option in find(values.get("model", DEFAULT)).options}
    given_options = {key: values[key] for key in defaults if values.get(key) is not None}
    options = {key: value for key, value in given_options.items() if value != defaults[key]}
    request_values = {name: value for name, value in values.items() if name in field_names(Request)}
    if isinstance(seconds := request_values.get("seconds"), str):
        request_values |= (
            {"seconds": None, "forever": True} if seconds == FOREVER else {"seconds": parse_seconds(seconds)}
        )
    request_values |= {
        "lora": tuple(request_values.get("lora") or ()),
        "timeline": parse_timeline(values.get("at"), values.get("timeline")),
    }
    parts = {"execution": _build_part(ExecutionConfig, values), "output": _build_part(Output, values)}
    return Request(**parts | {"options": options} | request_values)


def flat_values(request: Request) -> dict[str, Any]:
    """The inverse of `build_request`, for the options that affect a new video's frames."""
    names = field_names(Request) - {"options", "execution", "output", "extension", "image", "redo", "source_caption"}
    return {name: getattr(request, name) for name in names} | asdict(request.execution) | dict(request.options)


def _build_part(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{name: value for name, value in values.items() if name in field_names(kind)})


@cache
def field_names(kind: type[Any]) -> frozenset[str]:
    """The names of a dataclass's fields."""
    return frozenset(field.name for field in fields(kind))


def parse_size(text: str, aspect: str = "") -> tuple[int, int]:
    """(height, width) of 'WxH' or a name such as 240p; `aspect` applies to named sizes only. Raises: UsageError."""
    if aspect and text.lower() not in SIZES:
        raise UsageError(f"--aspect needs a named size, but --size is {text}", f"use one of {', '.join(SIZES)}")
    if text.lower() in SIZES:
        return apply_aspect(SIZES[text.lower()], aspect) if aspect else SIZES[text.lower()]
    width, _, height = text.lower().partition("x")
    if not all(re.fullmatch("[0-9]{1,9}", side) and int(side) for side in (width, height)):
        message = f"--size must be WIDTHxHEIGHT or {', '.join(SIZES)}, got {summarize(text)}"
        raise UsageError(message, "for example --size 96x64")
    return int(height), int(width)


def apply_aspect(size: tuple[int, int], aspect: str) -> tuple[int, int]:
    """A size of about the same area with aspect ratio 'W:H', in multiples of 8. Raises: UsageError."""
    match = re.fullmatch(r"(\d{1,4}):(\d{1,4})", aspect)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not width or not height or not 1 / 4 <= width / height <= 4:
        raise UsageError(f"--aspect must be WIDTH:HEIGHT from 1:4 to 4:1, got {aspect!r}", "for example --aspect 9:16")
    side = math.sqrt(size[0] * size[1] / (width * height))
    return 8 * round(height * side / 8), 8 * round(width * side / 8)


def frame_size(size: str | None, aspect: str, spec: ModelSpec, scale: int = 1) -> tuple[int, int] | None:
    """Resolve --size and --aspect to (height, width) of the model's frames.

    --aspect alone means 240p, and named sizes snap to the nearest supported one. scale: upscaling factor of the file.

    Raises: UsageError.
    """
    if not (size or aspect):
        return None
    height, width = parse_size(size or "240p", aspect)
    is_named = aspect or (size or "").lower() in SIZES
    if not is_named and (height % scale or width % scale):
        raise UsageError(f"--size {size} is not a multiple of --scale {scale}", "choose another size, or omit --scale")
    frame_shape = height // scale, width // scale
    return spec.nearest_size(frame_shape) if is_named and spec.size_multiple else frame_shape
