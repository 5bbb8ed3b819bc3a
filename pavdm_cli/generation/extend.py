"""The video to extend, and resampling of generated frames to its rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.errors import InputError, ModelError, UsageError
from pavdm_cli.generation.metadata import first_lines, valid_fields
from pavdm_cli.generation.prompt_ranges import prompt_ranges
from pavdm_cli.generation.request import DEFAULT_SECONDS, ENDLESS_FRAMES, MAX_SECONDS, Extension, Request
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.video import (
    SUFFIXES,
    ExtensionOptions,
    VideoInfo,
    check_extension,
    check_not_input,
    check_output,
    open_video,
    read_metadata,
    resolve_output,
    unused_path,
)
from pavdm_cli.video.audio.copy import suffix_for_audio
from pavdm_cli.video.paths import truncate_stem
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.output import NUMBER_SUFFIX

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig

MIN_ENLARGEMENT = 1.05  # a smaller difference in shape is not noted
INHERITED = ("size", "fps", "lora")  # settings of the source that its continuation by the same model has, too
MIN_FPS = Fraction(1, 60)  # at slower rates each frame would need hundreds of generated ones
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """An opened video to extend, and the number of frames to add at its rate."""

    video: VideoInfo
    extension: Extension
    frames: int
    scale: Scale = field(default_factory=Scale)  # of the model's frames in it, where pavdm wrote it

    def frames_to_generate(self, fps: int) -> int:
        """Number of frames to generate, at the model's rate."""
        return ENDLESS_FRAMES if self.endless else max(1, math.ceil(self.frames * fps / self.video.rate))

    @property
    def endless(self) -> bool:
        """Whether the continuation continues until it is stopped."""
        return self.frames == ENDLESS_FRAMES

    @property
    def new_duration(self) -> Fraction:
        """Seconds of the new file's video stream."""
        new = self.frames / self.video.rate
        return new if self.extension.only_new else self.video.duration + new

    @property
    def num_copied(self) -> int:
        """Frames of the video that go into the new file."""
        return 0 if self.extension.only_new else self.video.frames


def inherit_settings(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Option values for the continuation of a video; those that are not set come from the video if pavdm made it.

    The default model is the one that made it; the same model works at the same size and frame rate, with the same LoRA.
    The metadata are untrusted: nothing here opens what they name.
    """
    metadata, _ = stored_fields(path)
    metadata = metadata if "pavdm" in metadata else {}
    model = values.get("model") or metadata.get("model", registry.DEFAULT)
    inherited = {name: metadata[name] for name in INHERITED if name in metadata and model == metadata.get("model")}
    if values.get("aspect"):
        inherited.pop("size", None)
    return {**values, **{name: value for name, value in inherited.items() if not values.get(name)}, "model": model}


def find_inherited_model(name: str, path: Path) -> VideoModel:
    """The model that made a video. Raises: ModelError, which names the video."""
    try:
        return registry.find(name)
    except ModelError as error:
        raise ModelError(f"{path} was made by {name}: {error.message}", "choose a model with --model") from None


def open_source(request: Request) -> Source:
    """Open the video and check that it can be extended. Raises: InputError, UsageError."""
    assert request.extension
    video = open_video(request.extension.source)
    if video.rate < MIN_FPS:
        slow = f"{video.path} shows a frame every {float(1 / video.rate):.0f} s, too slow to be continued"
        raise InputError(slow, "speed it up first: ffmpeg -i INPUT -vf setpts=0.01*PTS faster.mp4")
    _reject_partial_copy(video)
    seconds = DEFAULT_SECONDS if request.seconds is None else request.seconds
    frames = round(seconds * video.rate) if request.frames is None else request.frames
    frames = request.frame_count if request.forever else frames
    if frames < 1:
        raise UsageError(
            f"--seconds or --frames is too small: the continuation would have {frames} frames",
            "for example --seconds 10",
        )
    if frames > MAX_SECONDS * video.rate and not request.forever:
        raise UsageError(
            f"the continuation would have {frames} frames, more than 24 hours at {float(video.rate):g} fps",
            "for example --seconds 10",
        )
    return Source(video, request.extension, frames, read_scale(video, request.spec.size))


def read_scale(video: VideoInfo, size: tuple[int, int]) -> Scale:
    """The upscaling of a video that pavdm wrote; 1 for any other."""
    metadata, _ = stored_fields(video.path)
    if not {"pavdm", "scale", "scale_filter"} <= metadata.keys():
        return Scale()
    scale = Scale(metadata["scale"], metadata["scale_filter"])
    has_original_size = video.sample_aspect_ratio == 1 and scale.size(size) == (video.height, video.width)
    return scale if has_original_size else Scale()


def _reject_partial_copy(video: VideoInfo) -> None:
    """Reject a partial copy left by a killed run. Raises: InputError."""
    metadata, _ = stored_fields(video.path)
    num_copied = metadata.get("copied")
    if not isinstance(num_copied, int) or not num_copied or video.frames > num_copied:
        return
    if video.path.stem.endswith(".partial"):
        part = f"{video.path} is an incomplete copy of {metadata.get('source')} without any new frames"
        raise InputError(part, f"extend the original instead; delete {video.path.name}")


def inherit_prompt(request: Request, source: Source) -> tuple[Request, list[str]]:
    """Fill in the source's caption and, by default, its prompt."""
    metadata, damage = stored_fields(source.video.path)
    if "pavdm" not in metadata:
        spec = request.video_model.spec
        style = [f"{spec.name} knows only {spec.world}: the continuation redraws the video in it"] if spec.world else []
        return request, [*damage, *style]
    metadata |= _last_prompt(metadata, source.video)
    request = replace(request, source_caption=metadata.get("caption", ""))
    return (request if request.prompt else replace(request, prompt=metadata.get("prompt", ""))), damage


def _last_prompt(metadata: dict[str, Any], video: VideoInfo) -> dict[str, Any]:
    """The prompt in effect at the end of the video, if it is not the first one."""
    if "prompt_ranges" in metadata:
        prompts = [part.prompt for part in prompt_ranges(metadata) if part.start < video.duration]
        return dict.fromkeys({"prompt", "caption"} & metadata.keys(), prompts[-1]) if prompts else {}
    end = float(video.duration - metadata.get("copied", 0) / video.rate)
    past = [change for change in metadata.get("timeline", []) if change["at"] < end]
    return past[-1] if past else {}


def stored_fields(video: Path) -> tuple[dict[str, Any], list[str]]:
    """The valid metadata fields of a video, and notes on damaged ones."""
    try:
        fields, errors = valid_fields(read_metadata(video) or {})
    except InputError as error:
        return {}, [f"damaged metadata is ignored: {error.message}"]
    if "pavdm" not in fields:
        errors = []
    return fields, [f"damaged metadata is ignored: {line}" for line in first_lines(errors)]


def choose_output(request: Request, source: Source) -> Path:
    """The checked output path. Raises: OutputError, UsageError."""
    target = resolve_output(request.output.path, partial(_free_name, source))
    check_not_input(source.video, target)  # first: --force would not help
    path = check_output(target, request.output.force)
    check_extension(source.video, path, ExtensionOptions(source.extension.audio, source.extension.only_new))
    return path


def resample_frames(
    chunks: Iterable[Pixels], fps: int, source: Source, num_earlier_frames: int = 0
) -> Iterator[list[Pixels]]:
    """Resample frames from `fps` to the source's rate by repeating or dropping frames.

    num_earlier_frames: at `fps`, before the first chunk.
    """
    for chunk in chunks:
        counts = num_earlier_frames, num_earlier_frames + len(chunk)
        start, stop = (min(source.frames, math.ceil(count * source.video.rate / fps)) for count in counts)
        frames = list(chunk)  # a repeated frame is one object, which is converted once
        indices = [math.floor(number * fps / source.video.rate) - counts[0] for number in range(start, stop)]
        yield [frames[index] for index in indices]
        num_earlier_frames = counts[1]


def _free_name(source: Source, folder: Path) -> Path:
    """INPUT-extended.EXT, or with --only-new INPUT-continuation.EXT.

    EXT: the input's own kind of file if that can copy its audio, else MP4 or Matroska.
    """
    path, suffix = source.video.path, source.video.path.suffix.lower()
    kinds = (suffix if suffix in SUFFIXES else ".mp4", ".mkv")
    suffix = kinds[0] if source.extension.only_new else suffix_for_audio(source.video, source.extension.audio, kinds)
    name = "-continuation" if source.extension.only_new else "-extended"
    stem = truncate_stem(path.stem.removesuffix(".partial"), f"{name}{NUMBER_SUFFIX}.partial{suffix}")
    return unused_path(folder, f"{stem}{name}", suffix)


def suffix_notes(request: Request, source: Source, path: Path) -> list[str]:
    """A note if the output got an unexpected suffix."""
    is_default = request.output.path is None or path != request.output.path
    if not is_default or path.suffix.lower() != ".mkv" or source.video.path.suffix.lower() == ".mkv":
        return []
    return [f"written as {path.suffix}, which can copy {source.video.audio_codecs[0]} audio"]


def shape_notes(config: GenerationConfig, source: Source) -> list[str]:
    """A note if the aspect ratios of the model's frames and the video differ: both are cropped around the center."""
    spec, video = config.spec, source.video
    height, width = spec.size
    shape = Fraction(video.width, video.height) * video.sample_aspect_ratio / Fraction(width, height)
    enlargement = max(shape, 1 / shape)
    if enlargement < MIN_ENLARGEMENT:
        return []
    is_fixed = any(option.flag == "--aspect" for option in spec.ignored)
    hint = "" if is_fixed else "; choose a --size or --aspect that matches its aspect ratio"
    return [
        f"{spec.name} makes frames of {width}x{height} and sees only the center of this {video.width}x{video.height} "
        f"video: the new frames show it {float(enlargement):.1f} times as large{hint}"
    ]


def start_notes(config: GenerationConfig, source: Source) -> list[str]:
    """A note if the video is too short for `--start noised` to re-noise a full window."""
    schedule, spec = config.schedule, config.spec
    num_available, num_needed = frames_to_read(config, source), schedule.capacity - 1
    num_renoised = schedule.num_renoised(config.layout.filled_by(num_available))
    if source.extension.start != "noised" or num_renoised == num_needed > 0:
        return []
    if not num_needed:
        return [f"--start noised is the same as --start clip: --method {config.method} has one chunk in its window"]
    full = config.layout.num_frames(schedule.context + num_needed * schedule.chunk)
    short = f"the video's end has {num_available} of the {full} frames of a full window at {spec.fps} fps"
    consequence = (
        f"{num_renoised} of {num_needed} chunks are re-noised"
        if num_renoised
        else "nothing is re-noised, as with --start clip"
    )
    return [f"{short}: {consequence}"]


def frames_to_read(config: GenerationConfig, source: Source) -> int:
    """Frames at the video's end to condition on: its last chunk or, with `--start noised`, up to a whole window."""
    layout, schedule = config.layout, config.schedule
    minimum = layout.num_frames(max(schedule.context, schedule.chunk))
    if source.extension.start != "noised":
        return minimum
    num_available, chunks = int(source.video.duration * config.spec.fps), 0
    full = -(-schedule.context // schedule.chunk) + schedule.capacity - 1
    while chunks < full and layout.num_frames((chunks + 1) * schedule.chunk) <= num_available:
        chunks += 1
    num_needed = layout.num_frames(schedule.context + (schedule.capacity - 1) * schedule.chunk)
    return max(minimum, min(num_needed, layout.num_frames(chunks * schedule.chunk)))
