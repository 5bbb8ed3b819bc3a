"""The bodies of requests and responses: strict, and with no field that is a path."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pavdm_cli.generation.request import ENDLESS_FRAMES, MAX_CONTEXT
from pavdm_cli.generation.timeline import MAX_PROMPT_LENGTH
from pavdm_cli.models.registry import DEFAULT
from pavdm_cli.serve import examples

Prompt = Annotated[str, Field(max_length=MAX_PROMPT_LENGTH)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[str | None, Field(max_length=20)]
FILE_SIZE = (
    "Of the file: WIDTHxHEIGHT, or a name such as 480p. The model's frames are `scale` times smaller; without `scale`, "
    "they are of this size, unless it is the model's default."
)


class Strict(BaseModel):
    """A body: no unknown fields, no conversions."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _integral(cls, value: Any) -> Any:
        """JSON has one kind of number: 8.0 is an integer too."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_examples(*values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [*values]})


class NewPrompt(Strict):
    """A prompt that takes effect at the next shift of the window."""

    model_config = _with_examples(examples.NEW_PROMPT)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_LENGTH)]


class TimelineEntry(Strict):
    """A later prompt, and when it takes effect."""

    model_config = _with_examples(*examples.CREATE["timeline"])

    at: Number | str = Field(examples=["20s"])
    prompt: Prompt


class Sampling(Strict):
    """The options that `generate` and `extend` share; those left out are the model's defaults."""

    model: str | None = Field(
        None, max_length=100, description=f"Default: {DEFAULT}; for a continuation, the model that made the video."
    )
    seed: Seed | None = None
    frames: Annotated[int, Field(ge=1, le=ENDLESS_FRAMES)] | None = None
    timeline: Annotated[list[TimelineEntry], Field(max_length=1000)] = []
    blend: Number = 0.0
    method: str = Field("pa", max_length=20)
    steps: int | None = None
    window: int | None = None
    chunk: int | None = None
    context: Annotated[int, Field(ge=0, le=MAX_CONTEXT)] | None = None
    sink: Annotated[int, Field(ge=0, le=MAX_CONTEXT)] | None = None
    ramp_up: Literal["grow", "full"] = "grow"
    stride: Annotated[int, Field(ge=0)] = 0
    guidance: Number | None = None
    solver: str | None = Field(None, max_length=20)
    reencode: bool | None = None
    edit_ratio: Number = 0.0
    aspect: str = Field("", max_length=20)
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: str = Field("auto", max_length=20)
    context_cache: Literal["auto", "reuse", "recompute"] = "auto"
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    overlap_decode: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    offload: Literal["none", "model", "sequential"] = "none"
    vae_tiling: Literal["auto", "on", "off"] = "auto"
    vae_batch_size: Annotated[int, Field(ge=0, le=64)] = 0
    cfg_batching: Literal["auto", "batched", "sequential"] = "auto"
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    keep_state: bool = False
    model_options: dict[str, bool | int | Number | str | None] = {}
    live: bool = Field(False, description="Render no more than a few seconds ahead of playback.")


class CreateVideo(Sampling):
    """A video from a prompt."""

    model_config = _with_examples(examples.CREATE, examples.LIVE)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_LENGTH)]
    seconds: Number | str | None = Field(None, examples=["8", "forever"])
    loop: bool = False
    warmup: int | None = None
    size: Size = Field(None, description=FILE_SIZE, examples=["384x256"])
    fps: Number | None = None
    scale: int | None = Field(None, description="How much larger the file's frames are than the model's.")
    scale_filter: Literal["lanczos", "nearest"] = "lanczos"


class ExtendVideo(Sampling):
    """The continuation of a video."""

    model_config = _with_examples(examples.EXTEND)

    prompt: Prompt = ""
    seconds: Number | str | None = Field(None, examples=["8"])
    start: Literal["clip", "noised"] = "clip"
    audio: Literal["keep", "silence", "drop"] = "keep"
    size: Size = Field(None, description="If given, it must equal that of the source video.")
    fps: Number | None = Field(None, description="If given, it must equal that of the source video.")
    model_size: Size = Field(None, description="Of the model's frames. Default: as for the source video.")
    model_fps: Number | None = Field(None, description="Of the model's frames. Default: as for the source video.")
    only_new: bool = False


class RedoVideo(Strict):
    """A span of a video to generate again."""

    model_config = _with_examples(examples.REDO)

    start: Number | str = Field(0, alias="from", examples=["2s"])
    end: Number | str | None = Field(None, alias="to", examples=["4s"])
    prompt: Prompt | None = None
    seed: Seed | None = None


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Change(BaseModel):
    """A prompt and the second at which it takes effect."""

    at: float
    prompt: str
    caption: str = ""


class Video(BaseModel):
    """A video: the fields of OpenAI's video object, and more."""

    model_config = _with_examples(examples.VIDEO)

    id: str
    object: Literal["video"] = "video"
    status: Literal["queued", "in_progress", "completed", "failed"]
    state: Literal["queued", "rendering", "paused", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    error: VideoError | None = None
    model: str
    prompt: str
    caption: str = Field(description="the prompt as passed to the model, with missing attributes filled in")
    notes: list[str] = Field(description="for example about unknown words and attributes that were filled in")
    seconds: str
    size: str = Field(description="of the file, as in requests")
    scale: int | None = Field(None, description="how much larger the file's frames are than the model's")
    remixed_from_video_id: str | None = None
    kind: str
    source_video_id: str | None = None
    seed: int
    fps: float = Field(description="frames per second of playback")
    frames: int
    total_frames: int = Field(description="0 for an endless video")
    render_fps: float = Field(description="frames that are rendered per second")
    timeline: list[Change]
    live: bool
    media_type: str = Field(description="of the file")
    playable: bool = Field(description="whether the file has frames, so that `partial` and its thumbnail work")


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(BaseModel):
    """Confirmation that a video was deleted."""

    model_config = _with_examples({"id": examples.VIDEO_ID, "object": "video.deleted", "deleted": True})

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class ErrorDetail(BaseModel):
    """The message of an error, and the field that caused it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error."""

    model_config = _with_examples(examples.ERROR)

    error: ErrorDetail


class ModelObject(BaseModel):
    """A model and how it is used."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "pavdm"
    description: str
    size: str = Field(description="of files by default")
    fps: float
    examples: list[str] = Field(description="prompts")
    help: list[dict[str, Any]]


class ModelList(BaseModel):
    """All models that are ready to use."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class Health(BaseModel):
    """The server works."""

    status: Literal["ok"] = "ok"
    version: str
    waiting: int = Field(description="videos that are queued or being rendered")


class ServerEvent(BaseModel):
    """A server-sent event."""

    model_config = _with_examples(*examples.EVENTS)

    event: Literal["video", "progress", "prompt", "prompt_rejected", "state"]
    data: str = Field(description="a JSON object")
