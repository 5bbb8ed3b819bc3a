"""Bodies of requests to jobs: everything that can be wrong is found before a video is queued."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pavdm_cli.errors import InputError, OutputError, UsageError
from pavdm_cli.generation import extend as continuation
from pavdm_cli.generation import image_start, redo, stored_request
from pavdm_cli.generation.checks import check
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Extension, Output, RedoOptions, Request, build_request, frame_size
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.timeline import parse_time
from pavdm_cli.hub.weights_dir import require_weights
from pavdm_cli.models import registry
from pavdm_cli.models.registry import MODELS
from pavdm_cli.serve.live import available_codecs
from pavdm_cli.serve.schemas import CreateVideo, ExtendVideo, RedoVideo, Sampling
from pavdm_cli.serve.settings import ServeSettings
from pavdm_cli.serve.store import VideoRecord, new_video_id, now
from pavdm_cli.video import VideoInfo, check_extension, open_video, read_image
from pavdm_cli.video.audio.copy import suffix_for_audio
from pavdm_cli.video.write.extend import ExtensionOptions

SERVER_OPTIONS = ("text_device",)  # of models, which the server decides
EXTENSION_CRF = 16


def create_job(body: CreateVideo, settings: ServeSettings, image: Path | None = None) -> VideoRecord:
    """A new video, which may begin with an uploaded image. Raises: PavdmError."""
    values = _values(body, settings) | {"image": image} | _sizes(body)
    request = build_request(values)
    check(request)
    config = resolve(request)
    notes = [*(image_start.notes(config, read_image(image)) if image else ()), *_notes(config)]
    require_weights(config.spec, True, config.video_model.published_spec)
    total = 0 if request.endless else config.frames
    record = _record("generate", request, total=total, suffix=_suffixes()[0], live=body.live)
    return replace(record, notes=json.dumps(notes))


def extend_job(body: ExtendVideo, settings: ServeSettings, source: Path) -> VideoRecord:
    """The continuation of a video of this server or of an uploaded one. Raises: PavdmError."""
    extension = Extension(source, body.start, body.only_new, body.audio)
    own = {"model": body.model, "size": body.model_size, "fps": body.model_fps, "aspect": body.aspect}
    inherited = continuation.inherit_settings(own, source)
    values = _values(body.model_copy(update={"model": inherited["model"]}), settings)
    size = frame_size(inherited["size"], body.aspect, registry.find(values["model"]).spec)
    values |= {"extension": extension, "size": size, "fps": inherited["fps"]}
    if "crf" not in body.model_fields_set:
        values["crf"] = EXTENSION_CRF
    request = build_request(values)
    check(request)
    video_source = continuation.open_source(request)
    _check_shape(body, video_source.video)
    request, notes = continuation.inherit_prompt(request, video_source)
    check(request)
    suffix = suffix_for_audio(video_source.video, body.audio, _suffixes())
    check_extension(video_source.video, Path(f"name{suffix}"), ExtensionOptions(body.audio, body.only_new))
    config = resolve(replace(request, seconds=None, frames=video_source.frames_to_generate(request.spec.fps)))
    require_weights(config.spec, bool(request.prompt), config.video_model.published_spec)
    notes += continuation.shape_notes(config, video_source) + continuation.start_notes(config, video_source)
    request = replace(request, seconds=None, frames=None if request.forever else video_source.frames)
    total = 0 if video_source.endless else video_source.num_copied + video_source.frames
    record = _record("extend", request, total=total, suffix=suffix, live=body.live)
    return replace(record, **_shape(video_source.video), notes=json.dumps([*notes, *_notes(config)]))


def redo_job(body: RedoVideo, settings: ServeSettings, source: Path, kind: str = "redo") -> VideoRecord:
    """A span of a finished video of this server, generated again. Raises: PavdmError."""
    original = redo.open_generated_video(source)
    start = parse_time(body.start) if body.start else _first_generated(original)
    span = RedoOptions(source, start, None if body.end is None else parse_time(body.end))
    redo.check_times(original, span)
    changes = {"prompt": body.prompt, "seed": _seed(body.seed), "device": settings.device}
    if settings.device == "auto":
        del changes["device"]
    request = redo.build_redo_request(original, span, changes)
    request = replace(request, output=Output(crf=original.metadata["crf"]))
    config = redo.build_original_config(original, request)
    splice = redo.find_span(config, original, span)
    config = redo.build_span_config(original, config, splice)
    record = _record(kind, request, total=splice.splice.end - splice.splice.first, suffix=source.suffix)
    return replace(record, **_shape(original.video), notes=json.dumps(_notes(config)))


def _notes(config: GenerationConfig) -> list[str]:
    """Notes on a video without those on its prompts, which may change."""
    prompt_notes = {note for prompt in config.prompts for note in prompt.notes}
    return [note for note in config.notes if note not in prompt_notes]


def _first_generated(original: redo.GeneratedVideo) -> float:
    """Seconds of a video that are copied from its input."""
    return float(original.metadata.get("copied", 0) / original.video.rate)


def _suffixes() -> tuple[str, ...]:
    """Kinds of files for a video, the usual one first. Raises: OutputError if there is no encoder for any."""
    codecs = available_codecs()
    if not codecs:
        raise OutputError("PyAV's FFmpeg has neither libx264 nor libvpx-vp9", "install PyAV from PyPI")
    return (".mp4", ".mkv") if "h264" in codecs else (".webm",)


def _record(kind: str, request: Request, *, total: int, suffix: str, live: bool = False) -> VideoRecord:
    video_id = new_video_id()
    request_json = json.dumps(stored_request.to_json(request))
    return VideoRecord(video_id, kind, request_json, f"{video_id}{suffix}", total, now(), live=live)


def _values(body: Sampling, settings: ServeSettings) -> dict[str, Any]:
    """Flat values for `build_request`. Raises: UsageError."""
    model = body.model or registry.DEFAULT
    if model not in MODELS:
        raise UsageError(f"there is no model {model[:40]!r}", f"use one of {', '.join(MODELS)}")
    values = body.model_dump(exclude={"timeline", "model_options", "live"}, exclude_none=True)
    values |= {"model": model} | _model_options(body, model)
    values["seconds"] = _seconds(values.get("seconds"))
    values["at"] = [(change.at, change.prompt) for change in body.timeline]
    values["seed"] = _seed(body.seed)
    threads = settings.resolve_threads(body.threads)
    return values | {"device": settings.device, "threads": threads, "prompt": " ".join(values["prompt"].split())}


def _model_options(body: Sampling, model: str) -> dict[str, Any]:
    option_names = {option.key for option in registry.find(model).options} - {*SERVER_OPTIONS}
    for name in body.model_options:
        if name not in option_names:
            raise UsageError(f"{name[:40]!r} is not an option of {model}", f"known: {', '.join(sorted(option_names))}")
    return body.model_options


def _seconds(value: float | str | None) -> float | str | None:
    """Seconds as a number; OpenAI's clients send text."""
    if not isinstance(value, str) or value == "forever":
        return value
    return parse_time(value)


def _sizes(body: CreateVideo) -> dict[str, Any]:
    """Height and width of the model's frames, and the upscaling, for the file's size. Raises: UsageError."""
    spec, scale = registry.find(body.model or registry.DEFAULT).spec, body.scale
    height, width = (side * spec.scale for side in spec.size)
    is_default = body.size == f"{width}x{height}" and not body.aspect
    if scale is None and (is_default or not (body.size or body.aspect)):
        return {"size": None, "scale": None}
    scale = 1 if scale is None else scale
    size = frame_size(body.size, body.aspect, spec, max(1, scale))
    if size:
        try:
            spec.check_size(size)
        except UsageError as error:
            times = f"the file's size is {scale} times that of the model's frames: " if scale > 1 else ""
            raise UsageError(f"{times}{error.message}", error.hint) from None
    return {"size": size, "scale": scale}


def _shape(video: VideoInfo) -> dict[str, Any]:
    """Size and frame rate of a file that has those of another video."""
    return {"size": f"{video.width}x{video.height}", "fps": float(video.rate)}


def _check_shape(body: ExtendVideo, video: VideoInfo) -> None:
    """A continuation has the size and frame rate of its video. Raises: UsageError."""
    shape = _shape(video)
    if body.size not in (None, shape["size"]):
        hint = "omit size; model_size is that of the model's frames"
        raise UsageError(f"the continuation has the size of its video, {shape['size']}, got {body.size}", hint)
    if body.fps is not None and abs(body.fps - shape["fps"]) > 0.01:
        hint = "omit fps; model_fps is that of the model's frames"
        raise UsageError(f"the continuation has its video's {shape['fps']:g} frames/s, got {body.fps:g}", hint)


def _seed(seed: int | None) -> int:
    return int.from_bytes(os.urandom(4), "little") % 1_000_000_000 if seed is None else seed


def is_image(path: Path) -> bool:
    """Whether an uploaded file is an image, rather than a video. Raises: InputError if it is neither."""
    try:
        read_image(path)
    except InputError as image_error:
        try:
            open_video(path)
        except InputError as error:
            raise (image_error if "not an image" not in image_error.message else error) from None
        return False
    return True
