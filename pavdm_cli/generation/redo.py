"""A span of a finished video that is made again: what is asked, what the file allows, and how the video was made."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pavdm_cli.errors import InputError, OutputError, UsageError
from pavdm_cli.generation.config import GenerationConfig, resolve
from pavdm_cli.generation.metadata import sound_fields
from pavdm_cli.generation.request import Output, Redo, Request, build_request, names_of, parse_size
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models import registry
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.runtime.untrusted import stored_kinds
from pavdm_cli.sampling.right_context import with_right_context
from pavdm_cli.video import VideoInfo, check_output, open_video, read_metadata, resolve_output, unused_path
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.encode import EncoderOptions
from pavdm_cli.video.write.output import NUMBER_SUFFIX, truncate_stem
from pavdm_cli.video.write.splice import SUFFIXES, Splice, keyframes, matching_params

NEEDED = ("pavdm", "prompt", "model", "weights", "seed", "frames", "fps", "method", "crf")
AS_STORED = {*stored_kinds(GenerationConfig), *stored_kinds(ExecutionConfig), "model", "lora", "fps"}
AS_STORED -= {"forever"}  # the video has its length by now


@dataclass(frozen=True, slots=True)
class MadeVideo:
    """A complete video that pavdm made, and how."""

    video: VideoInfo
    metadata: Mapping[str, Any]

    @property
    def continues(self) -> bool:
        """Whether the model's frames follow given ones: of another video, or an image."""
        return "source" in self.metadata or "image" in self.metadata

    @property
    def scale(self) -> Scale:
        """By how much the model's frames are enlarged in it."""
        return Scale(self.metadata.get("scale", 1), self.metadata.get("scale_filter", "lanczos"))

    @property
    def encoder(self) -> EncoderOptions:
        """How its frames were encoded."""
        return EncoderOptions(self.metadata["crf"], scale=self.scale)


@dataclass(frozen=True, slots=True)
class Span:
    """Whole chunks between frames at which the file can be cut."""

    splice: Splice
    chunks: range  # of the video, without those of its warm-up
    frames: range  # of the model
    origin: Fraction  # seconds of the file at which the model's first frame is shown
    held: bool  # whether frames are repeated or left out to reach the file's frame rate

    @property
    def to_end(self) -> bool:
        """Whether nothing of the video follows."""
        return self.splice.end == self.splice.video.frames


Task: TypeAlias = tuple[MadeVideo, Span, Redo]


def open_made(path: Path) -> MadeVideo:
    """Look at the video before any work. Raises: InputError."""
    video = open_video(path)
    if video.path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no {', '.join(SUFFIXES)} file", "only those have segments that can be replaced")
    metadata, _ = sound_fields(read_metadata(path) or {})
    if missing := [name for name in NEEDED if name not in metadata]:
        what = "does not say how it was made" if len(missing) == len(NEEDED) else f"does not store its {missing[0]}"
        raise InputError(f"{path} {what}", "redo needs a video that pavdm generated or extended")
    if path.stem.endswith(".partial"):
        raise InputError(f"{path} is not complete", f"`{command_line(('pavdm', 'resume'), str(path))}` finishes it")
    copied, frames = metadata.get("copied", 0), metadata["frames"]
    if video.frames != copied + frames:
        raise InputError(f"{path} has {video.frames} frames of {copied + frames}", "give the file that pavdm wrote")
    return MadeVideo(video, metadata)


def request_of(made: MadeVideo, redo: Redo, changes: Mapping[str, Any]) -> Request:
    """How the video was made, but for `changes`; None leaves a value as it was. Raises: UsageError, ModelError."""
    stored = made.metadata
    options = {option.key for option in registry.find(stored["model"]).options}
    values = {name: value for name, value in stored.items() if name in AS_STORED | options and value is not None}
    values["size"] = parse_size(stored["size"]) if "size" in stored else None
    values |= {"prompt": stored.get("caption") or stored["prompt"], "source_caption": stored.get("caption", "")}
    values["timeline"] = [] if changes.get("prompt") else [_change(one) for one in stored.get("timeline", [])]
    values["blend"] = stored.get("blend", 0.0) if values["timeline"] else 0.0
    values |= {name: value for name, value in changes.items() if value is not None}
    if changes.get("device") not in (None, stored.get("device")):  # which may have other backends and precisions
        values |= {"attention": "auto", "precision": "auto"}
    known = names_of(Request) | names_of(ExecutionConfig) | names_of(Output) | options
    return build_request({name: value for name, value in values.items() if name in known} | {"redo": redo})


def _change(stored: Mapping[str, Any]) -> PromptChange:
    """A later prompt of the video, as a caption, which leaves nothing to the seed."""
    return PromptChange(stored["at"], stored.get("caption") or stored["prompt"])


def check_times(made: MadeVideo, redo: Redo) -> None:
    """Refuse a span that is not in the video. Raises: UsageError."""
    length = float(made.video.duration)
    if redo.end is not None and redo.start >= redo.end:
        raise UsageError(f"--from {redo.start:g}s is not before --to {redo.end:g}s", "for example --from 12s --to 16s")
    for name, time in (("--from", redo.start), ("--to", redo.end or 0.0)):
        if time > length or (name == "--from" and time >= length):
            raise UsageError(f"{name} {time:g}s is outside the video of {length:g} s", "give a time inside it")


def config_of(made: MadeVideo, request: Request) -> GenerationConfig:
    """The configuration with which the whole video would be made. Raises: UsageError, DeviceError."""
    config = resolve(request)
    if made.continues:
        config = replace(config, schedule=replace(config.schedule, first_chunk=0))
    if "source" in made.metadata:
        frames = math.ceil(config.frames * config.spec.fps / made.video.rate)
        fill = 0 if config.schedule.context else config.schedule.window
        config = replace(config, frames=frames, schedule=replace(config.schedule, fill_to=fill))
    config = replace(config, given=_given_frames(config, made))
    return replace(config, frames=config.frames - (_offset(config, made) if "image" in made.metadata else 0))


def _given_frames(config: GenerationConfig, made: MadeVideo) -> int:
    if "source" in made.metadata:
        return config.layout.count(max(config.schedule.context, config.schedule.chunk))
    if "image" in made.metadata:
        return 1 if config.layout.first == 1 else config.layout.count(config.schedule.context)
    return 0


def find_span(config: GenerationConfig, made: MadeVideo, redo: Redo) -> Span:
    """The smallest span that holds what is asked, from one border of the file's segments to another.

    Raises: InputError, UsageError.
    """
    video = made.video
    params = matching_params(video, Fraction(config.spec.fps), made.encoder)
    if params is None:
        raise InputError(f"{video.path} was encoded by another program or version", "give the file that pavdm wrote")
    times = video.times
    first = bisect_right(times, video.start + Fraction(str(redo.start))) - 1
    end = video.frames if redo.end is None else bisect_left(times, video.start + Fraction(str(redo.end)))
    borders, cuts = dict(_borders(config, made)), {*keyframes(video), video.frames}
    places = sorted(frame for frame in borders if frame in cuts)
    before, after = [place for place in places if place <= first], [place for place in places if place >= end]
    if not before:
        what = "copied from another video" if "source" in made.metadata else "an image that was given"
        given = f"frames before {float(times[min(places)]):g} s are {what}" if places else "it has no border of chunks"
        raise UsageError(f"--from {redo.start:g}s: {given}", "begin after them")
    chunks = range(borders[before[-1]], borders[after[0]])
    origin = times[_offset(config, made)]
    frames = range(_model_frames(config, made, chunks.start), _model_frames(config, made, chunks.stop))
    held = Fraction(config.spec.fps) != video.rate
    return Span(Splice(video, params, before[-1], after[0]), chunks, frames, origin, held)


def _borders(config: GenerationConfig, made: MadeVideo) -> Iterator[tuple[int, int]]:
    """Frames of the file at which a chunk begins, with that chunk's number; at the end, the number of chunks."""
    rate, fps, offset = made.video.rate, config.spec.fps, _offset(config, made)
    whole = made.video.frames
    for chunk in range(config.chunks):
        latents = len(config.schedule.latents(range(config.warmup, config.warmup + chunk)))
        if latents % config.layout.unit == 0:
            frames = _model_frames(config, made, chunk)
            yield offset + (frames if "source" not in made.metadata else math.ceil(frames * rate / fps)), chunk
    yield whole, config.chunks


def _offset(config: GenerationConfig, made: MadeVideo) -> int:
    """Frames of the file before the model's."""
    if "image" in made.metadata and not config.holds_image:
        return 1
    return int(made.metadata.get("copied", 0))


def _model_frames(config: GenerationConfig, made: MadeVideo, chunk: int) -> int:
    """Frames that the model made before a chunk."""
    latents = len(config.schedule.latents(range(config.warmup, config.warmup + chunk)))
    return config.layout.frames(latents, latents, config.begun).start


def span_config(config: GenerationConfig, span: Span) -> GenerationConfig:
    """The configuration of the video until the span's end. Raises: UsageError where no span of it can be made."""
    schedule, first = config.schedule, config.warmup + span.chunks.start
    if span.chunks.start and not (schedule.context or schedule.fill_to):
        schedule = replace(schedule, fill_to=schedule.window)
    if not span.to_end:
        if config.method != "pa" or schedule.full_window:
            how = "--ramp-up full" if schedule.full_window else f"--method {config.method}"
            raise UsageError(f"{how} cannot lead up to what follows a span", "leave --to out: redo to the end")
        following = len(schedule.latents(range(config.warmup + span.chunks.stop, config.warmup + span.chunks.stop + 1)))
        schedule = with_right_context(schedule, config.warmup + span.chunks.stop, following, first)
    frames = span.frames.stop if not span.to_end else config.frames
    return replace(config, schedule=schedule, frames=frames)


def target(made: MadeVideo, output: Output) -> tuple[Path, bool]:
    """Where the new video is written, and whether it then takes the place of the old one. Raises: OutputError."""
    path, suffix = made.video.path, made.video.path.suffix
    own = partial(_free_name, path)
    wanted = resolve_output(output.path, own)
    if wanted.suffix.lower() != suffix.lower():
        raise UsageError(f"{wanted.name} is no {suffix} file, as the video is", f"end the name in {suffix}")
    if wanted.exists() and wanted.samefile(path):
        if not output.force:
            raise OutputError(f"{wanted} is the video itself", "use --force to replace it once the new one is complete")
        return check_output(own(path.parent)), True
    return check_output(wanted, output.force), False


def _free_name(path: Path, folder: Path) -> Path:
    ending = f"-redo{NUMBER_SUFFIX}.partial{path.suffix}"
    return unused_path(folder, f"{truncate_stem(path.stem, ending)}-redo", path.suffix)
