"""All that a user asked for, in values that are validated once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pavdm_cli.errors import UsageError
from pavdm_cli.specs import ModelSpec, find

LONGEST = 24 * 3600.0  # seconds of video in one run
SIZES = {"144p": (144, 256), "240p": (240, 424), "360p": (360, 640), "480p": (480, 848), "720p": (720, 1280)}

SWITCH = ("auto", "on", "off")
OFFLOADS = ("none", "parts", "blocks")
PASSES = ("auto", "together", "apart")
OVERLAP_KV = {True: "reuse", False: "recompute"}  # how the command line says `Engine.overlap_memory`
OFF = {
    "table": "--no-table",
    "text_memory": "--no-text-memory",
    "fused": "--no-fused",
}  # and what is on by default


PRECISIONS = ("fp32", "bf16")
MOST_WARMUP = 100  # chunks
MOST_SCALE = 8
SCALE_FILTERS = ("lanczos", "nearest")
DEVICES = ("auto", "cpu", "cuda", "mps")
ATTENTION = ("auto", "fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa")


def check_text(what: str, text: str) -> None:
    """Refuse bytes that a terminal or a script passed on though they are no text. Raises: UsageError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is not UTF-8: {text!r}", "write it in UTF-8") from error


def check_name(option: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse what is none of the names that an option takes. Raises: UsageError."""
    if name not in known:
        raise UsageError(f"{option} must be one of {', '.join(known)}, got {name!r}", f"{known[0]} is the default")


def check_graphs_on(wanted: str, unrecordable: str) -> None:
    """Refuse graphs that are wanted "on" beside an option that rules them out. Raises: UsageError."""
    if wanted == "on" and unrecordable:
        raise UsageError(f"--cuda-graphs on does not go with {unrecordable}", "leave one of them out")


@dataclass(frozen=True, slots=True)
class Engine:
    """How the work is done, one switch an optimisation; only an inexact overlap memory changes the picture."""

    attention: str = "auto"  # or the name of a back end
    table: bool = True  # modulation vectors of all levels once a video, else at every step
    text_memory: bool = True  # keys and values of the text once a prompt, else at every step
    overlap_memory: bool | None = None  # those of the clean overlap once a shift; None: where that is exact
    fused: bool = True  # kernels and joined operations, else their references in plain torch
    cuda_graphs: str = "auto"  # steps recorded and replayed: where launching them is the limit, or always ("on")
    decode_beside: str = "auto"  # chunks decoded while the next are made: on a GPU, or always ("on")
    compile: bool = False  # blocks as graphs of torch.compile
    offload: str = "none"  # what waits on the host for its turn: nothing, whole parts, or also the transformer's blocks
    passes: str = "auto"  # of guidance: in one batch ("together"), one after the other ("apart"), or what fits
    pictures: int = 4  # of 240p that the codec works on at a time
    tiled: bool = False  # each of them in tiles: less memory, and a slightly other picture

    @property
    def unrecordable(self) -> str:
        """The option with which no step can be recorded, and why; empty where steps can be."""
        anew = [OFF[name] for name in ("table", "text_memory") if not getattr(self, name)]
        if anew:
            return f"{anew[0]}, which brings something from the CPU at every step"
        return "" if self.offload == "none" else "--offload, which moves weights"

    def decodes_beside(self, kind: str) -> bool:
        """Whether a chunk is decoded while the next is made, on this kind of device; not where weights make room."""
        return self.decode_beside == "on" or (
            self.decode_beside == "auto" and kind == "cuda" and self.offload == "none"
        )

    def __post_init__(self) -> None:
        check_name("--attention", self.attention, ATTENTION)
        switches = (("cuda-graphs", self.cuda_graphs, SWITCH), ("decode-beside", self.decode_beside, SWITCH))
        for name, value, known in (*switches, ("offload", self.offload, OFFLOADS), ("passes", self.passes, PASSES)):
            check_name(f"--{name}", value, known)
        if self.offload != "none" and self.fixed:
            raise UsageError(
                f"{self.fixed[0]} does not go with --offload, which moves weights", "leave one of them out"
            )
        check_graphs_on(self.cuda_graphs, self.unrecordable)

    @property
    def fixed(self) -> list[str]:
        """The options asked for that weights must stay in place for."""
        asked = {"--cuda-graphs on": self.cuda_graphs, "--decode-beside on": self.decode_beside}
        return [name for name, value in asked.items() if value == "on"] + ["--compile"] * self.compile

    @property
    def loosened(self) -> dict[str, Any]:
        """What is otherwise without those options."""
        asked = {"cuda_graphs": self.cuda_graphs, "decode_beside": self.decode_beside}
        return {name: "auto" for name, value in asked.items() if value == "on"} | {"compile": False}

    @property
    def switches(self) -> list[str]:
        """The words of the command line that take no value, for all that is not as it is by default."""
        return [word for name, word in OFF.items() if not getattr(self, name)] + ["--compile"] * self.compile


PLAIN = Engine(
    table=False, text_memory=False, overlap_memory=False, fused=False, cuda_graphs="off", decode_beside="off"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model that was trained on scored captions reads the prompt; the others do not look here."""

    aesthetic: float | None = 6.5
    motion: float | None = None
    camera: str = ""
    device: str = ""  # of the text encoder; empty: the model's own

    def __post_init__(self) -> None:
        check_text("--camera-motion", self.camera)
        check_name("--text-device", self.device or "auto", DEVICES)
        for name, score in (("aesthetic", self.aesthetic), ("motion", self.motion)):
            if score is not None and not 0 <= score <= 100:
                raise UsageError(f"--{name}-score must be 0 to 100, got {score:g}", "captions had about 4 to 7")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; None stands for the model's own value."""

    model: str = "pocket"
    method: str = "pa"
    steps: int | None = None
    window: int | None = None
    chunk: int | None = None
    overlap: bool = True
    guidance: float | None = None
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    engine: Engine = Engine()
    reading: Reading = Reading()
    fp32_timesteps: bool = False  # not rounded to the precision of the weights, as the model was trained
    reencode: bool | None = None  # clip after clip, from decoded frames; None: where the model's own extension does
    edit_ratio: float = 0.0  # of the noise range: how far what a clip is shown of the one before is made again
    precision: str = "auto"  # of products: fp32, bf16, or the model's own
    warmup: int | None = None  # chunks generated before the video and dropped

    def __post_init__(self) -> None:
        if self.warmup is not None and not 0 <= self.warmup <= MOST_WARMUP:
            raise UsageError(f"--warmup must be 0 to {MOST_WARMUP} chunks, got {self.warmup}", "0 drops none")
        check_name("--device", self.device, DEVICES)
        check_graphs_on(self.engine.cuda_graphs, self.unrecordable)

    @property
    def unrecordable(self) -> str:
        """As `Engine.unrecordable`, whatever the option is about."""
        return "--edit-ratio, whose clips are made step by step" if self.edit_ratio else self.engine.unrecordable

    @property
    def spec(self) -> ModelSpec:
        """The model asked for."""
        return find(self.model)


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

    def __post_init__(self) -> None:
        if self.scale is not None and not 1 <= self.scale <= MOST_SCALE:
            raise UsageError(f"--scale must be 1 to {MOST_SCALE}, got {self.scale}", "1 keeps the model's own size")
        check_name("--scale-filter", self.scale_filter, SCALE_FILTERS)

    def scale_of(self, spec: ModelSpec) -> int:
        """By how much frames of a model are enlarged."""
        return spec.scale if self.scale is None else self.scale


@dataclass(frozen=True, slots=True)
class Extension:
    """The video to continue, and what the new one keeps of it."""

    source: Path
    start: str = "clip"  # its last chunk stays clean; "noised": its last window is noised again (algorithm 1)
    only_new: bool = False
    audio: Literal["keep", "silence", "drop"] = "keep"

    def __post_init__(self) -> None:
        if self.start not in ("clip", "noised"):
            raise UsageError(f"--start must be clip or noised, got {self.start!r}", "clip is the default")
        if self.audio not in ("keep", "silence", "drop"):
            raise UsageError(f"--audio must be keep, silence or drop, got {self.audio!r}", "keep is the default")


@dataclass(frozen=True, slots=True)
class Request:
    """One video: words, length, and how to make and write it."""

    prompt: str
    seconds: float | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None  # pixels, height and width
    fps: float | None = None
    sampling: Sampling = field(default_factory=Sampling)
    output: Output = field(default_factory=Output)
    extension: Extension | None = None
    image: Path | None = None  # the picture the video begins with
    source_caption: str = ""  # of the video that is continued, for what the prompt leaves out

    def __post_init__(self) -> None:
        check_text("the prompt", self.prompt)
        spec = self.spec
        if self.seconds is not None and self.frames is not None:
            raise UsageError("--seconds and --frames were both given", "give one of them")
        if self.count < 1 or self.count > LONGEST * spec.fps:
            asked = f"{self.frames} frames" if self.seconds is None else f"{self.seconds:g} s, {spec.fps} frames/s"
            raise UsageError(f"cannot make a video of {asked}", "ask for 1 frame to 24 hours")
        if self.continues and self.sampling.warmup:
            raise UsageError(
                "--warmup is for a video that begins with noise, and this one begins with given frames", "leave it out"
            )
        spec.check_scale(self.output.scale_of(spec))
        if not 0 <= self.output.crf <= 51:
            raise UsageError(f"--crf must be 0 to 51, got {self.output.crf}", "18 is nearly lossless, 28 small")

    @property
    def continues(self) -> bool:
        """Whether the first chunk follows given frames, a clip or a picture."""
        return self.extension is not None or self.image is not None

    @property
    def spec(self) -> ModelSpec:
        """The model at the size and rate asked for. Raises: UsageError."""
        spec = self.sampling.spec
        size, fps = self.size or spec.size, spec.fps if self.fps is None else self.fps
        spec.check_size(size)
        spec.check_rate(fps)
        return replace(spec, size=size, fps=int(fps))

    @property
    def count(self) -> int:
        """Frames to make."""
        if self.frames is not None:
            return self.frames
        seconds = 10.0 if self.seconds is None else self.seconds
        return round(seconds * self.spec.fps) if abs(seconds) < 1e9 else -1


def parse_overlap_kv(text: str | None) -> bool | None:
    """'reuse' or 'recompute' to whether the overlap's keys and values are kept. Raises: UsageError."""
    if text not in (None, *OVERLAP_KV.values()):
        raise UsageError(f"--overlap-kv must be recompute or reuse, got {text!r}", "leave it out for the model's own")
    return None if text is None else text == OVERLAP_KV[True]


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


def picture_size(size: str | None, aspect: str) -> tuple[int, int] | None:
    """What --size and --aspect ask for; a shape alone is of 240p. Raises: UsageError."""
    return parse_size(size or "240p", aspect) if size or aspect else None
