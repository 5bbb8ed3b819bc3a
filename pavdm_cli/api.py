"""The Python API that `import pavdm_cli` offers: `generate`, `generate_batch`, `extend`, `load_model`, `list_models`.

Options have the names of the command line, with underscores: `generate("a boat", seconds=5, steps=6, device="cpu")`.
Errors and notes use these names, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.errors import UsageError
from pavdm_cli.generation import extend as continuation
from pavdm_cli.generation import image_start, pipeline, write
from pavdm_cli.generation.checks import check
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.loaded import LoadedRunner, load
from pavdm_cli.generation.option_names import nearest_option
from pavdm_cli.generation.request import Extension, Output, Request, build_request, field_names, frame_size
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.timeline import FOREVER, parse_seconds
from pavdm_cli.generation.write_extension import last_frames, write_extension
from pavdm_cli.models import registry
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.python_names import python_names, with_python_names
from pavdm_cli.runtime.validation import check_types
from pavdm_cli.video import read_image
from pavdm_cli.video.write.output import check_output

Frame = NDArray[np.uint8]  # (H, W, 3), RGB
EXTENSION_OPTIONS = field_names(Extension) - {"source"}
NEW_VIDEO_OPTIONS = frozenset({"image", "loop", "warmup", "scale", "scale_filter", "encoder", "ffmpeg"})
INTERNAL_FIELDS = frozenset(
    {"prompt", "model", "options", "execution", "output", "extension", "source_caption", "path", "force", "processes"}
) | {"forever", "redo", "repeat_positions", "stream_format", "cache_modulation", "cache_text", "fused_kernels"}
COMMAND_ONLY = {  # options of the commands, and what there is instead
    "output": "give the path to save()",
    "force": "give it to save()",
    "count": "call it once for each seed",
    "plan": "`pavdm generate --plan` shows the plan",
    "config": "configuration files are read by commands only",
    "forever": 'use seconds="forever"',
}


def list_models() -> list[ModelSpec]:
    """The models: name, native size and frame rate, window, license."""
    return list(registry.specs())


def load_model(name: str = registry.DEFAULT, **options: Any) -> Model:
    """A reusable model; weights are loaded when the first frame is generated.

    name: a model name or a folder of weights; options: defaults for all of its videos. Raises: UsageError, ModelError.
    """
    with python_names():
        _check_names(options, known_options(name))
        return Model(registry.find(name).spec.name, options)


def generate(prompt: str, *, model: str | Model = registry.DEFAULT, **options: Any) -> Video:
    """A lazy video of a prompt: nothing is computed until its frames are read or it is saved.

    Raises: UsageError, ModelError.
    """
    return (model if isinstance(model, Model) else load_model(model)).generate(prompt, **options)


def extend(path: str | Path, prompt: str = "", *, model: str | Model | None = None, **options: Any) -> Video:
    """The continuation of a video file; prompt and model default to those stored in it.

    Raises: UsageError, ModelError, InputError.
    """
    if model is None:
        with python_names():
            name = continuation.inherit_settings({}, Path(path))["model"]
            model = load_model(continuation.find_inherited_model(name, Path(path)).spec.name)
    return (model if isinstance(model, Model) else load_model(model)).extend(path, prompt, **options)


def generate_batch(
    jobs: Iterable[Mapping[str, Any]], folder: str | Path, *, model: str = registry.DEFAULT, **options: Any
) -> list[Path]:
    """Generate a video for every job into a folder, which several processes may share (docs/scale.md).

    jobs: one mapping per video with `prompt` and its own options (seed defaults to 0); options: shared by all jobs.
    Each job is rendered once. Raises: UsageError before the first video, PavdmError after the last one if a job
    failed, KeyboardInterrupt.
    """
    from pavdm_cli.batch.run import run_jobs

    model_with_options = load_model(model, **options)
    with python_names():
        return run_jobs([model_with_options.generate(**{"seed": 0, **job}).request for job in jobs], Path(folder))


class Model:
    """Generates several videos with weights that are loaded once."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self._loaded_model: LoadedRunner | None = None

    @python_names()
    def generate(self, prompt: str, **options: Any) -> Video:
        """Same as the function `generate`."""
        _check_names(options, known_options(self.name))
        request = self._request(prompt, options)
        check(request)
        return Video(self, request)

    @python_names()
    def extend(self, path: str | Path, prompt: str = "", **options: Any) -> Video:
        """Same as the function `extend`."""
        _check_names(options, known_options(self.name) - NEW_VIDEO_OPTIONS | EXTENSION_OPTIONS)
        extension = Extension(Path(path), **{name: options[name] for name in EXTENSION_OPTIONS & options.keys()})
        other_options = {name: value for name, value in options.items() if name not in EXTENSION_OPTIONS}
        inherited = continuation.inherit_settings(self.options | other_options | {"model": self.name}, Path(path))
        request = self._request(prompt, {"crf": 16} | inherited, extension=extension)
        source = continuation.open_source(request)
        request, _ = continuation.inherit_prompt(request, source)
        check(request)
        frames = source.frames_to_generate(request.spec.fps)
        return Video(self, replace(request, seconds=None, frames=frames), source)

    def _request(self, prompt: str, options: dict[str, Any], **overrides: Any) -> Request:
        values = self.options | options | {"prompt": prompt, "model": self.name} | overrides
        if isinstance(size := values.get("size"), str):
            values["size"] = frame_size(size, values.get("aspect", ""), registry.find(self.name).spec)
        if isinstance(lora := values.get("lora"), str):
            values["lora"] = [lora]
        if image := values.get("image"):
            values["image"] = Path(image)
        if isinstance(length := values.get("seconds"), str):
            values["seconds"] = parse_seconds(length)
        typed_values = {name: value for name, value in values.items() if (name, value) != ("seconds", FOREVER)}
        for dataclass_type in (Request, Output, ExecutionConfig):
            check_types(typed_values, dataclass_type)
        return build_request(values)

    def prepare(self, config: GenerationConfig) -> tuple[GenerationConfig, ModelRunner]:
        """Load the model if needed; returns the configuration adjusted to fit in memory, and the model.

        Raises: UsageError, ModelError, DeviceError.
        """
        self._loaded_model = self._loaded_model or load(config)
        if reload_reason := self._loaded_model.reload_reason(config):
            raise UsageError(f"the model was loaded with a different {reload_reason}", "load a new one with load_model")
        return self._loaded_model.adapt(config)


@dataclass(frozen=True, slots=True, repr=False)
class Video:
    """A lazy video: generated when its frames are read and again when it is saved, with identical frames."""

    model: Model
    request: Request
    source: continuation.Source | None = None  # the video being extended, if any

    def __repr__(self) -> str:
        request = self.request
        length = "endless" if request.endless else f"{request.frame_count} frames"
        new = f", after {self.source.video.path}" if self.source else ""
        return f"<Video of {request.prompt!r} by {self.model.name}: {length}, seed {request.seed}{new}>"

    @property
    @python_names()
    def notes(self) -> list[str]:
        """What the command line would note: words that the model does not know, and how the prompt is filled in."""
        config = self._config()
        notes = image_start.notes(config, read_image(self.request.image)) if self.request.image else []
        if self.source:
            _, notes = continuation.inherit_prompt(self.request, self.source)
            notes += continuation.shape_notes(config, self.source) + continuation.start_notes(config, self.source)
        return [with_python_names(note) for note in (*notes, *config.notes)]

    @property
    def fps(self) -> Fraction:
        """Frames per second of `frames`."""
        return self.source.video.rate if self.source else Fraction(self.request.spec.fps)

    def frames(self) -> Iterator[Frame]:
        """Yield each frame as soon as it is decoded, at the model's size.

        For a continuation: only the new frames, at the source's frame rate.
        """
        with python_names():
            for chunk in self._chunks(*self.model.prepare(self._config())):
                yield from chunk

    def _chunks(self, config: GenerationConfig, runner: ModelRunner) -> Iterator[Any]:
        if self.source:
            end = from_bytes(last_frames(config, self.source).frames())
            start = pipeline.state_after_clip(config, runner, end, self.source.extension.start == "noised")
            return continuation.resample_frames(
                pipeline.generate_frames(config, runner, start), config.spec.fps, self.source
            )
        if self.request.image:
            return image_start.frames_from_image(config, runner, read_image(self.request.image))
        return pipeline.generate_frames(config, runner)

    @python_names()
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the video to a file. If interrupted, `pavdm resume` continues it. Raises: PavdmError."""
        if self.request.endless:
            raise UsageError("an endless video cannot be saved", "iterate over frames() instead, or set a length")
        output = replace(self.request.output, path=check_output(Path(path), force), force=force)
        config, runner = self.model.prepare(self._config())
        control = write.RunControl(lambda frames: None, lambda: False)
        if self.source:
            return write_extension(config, runner, self.source, output, control).path
        image = read_image(self.request.image) if self.request.image else None
        return write.write_video(config, runner, output, control, image).path

    def _config(self) -> GenerationConfig:
        """The resolved configuration of the video. Raises: UsageError, DeviceError."""
        config = resolve(self.request)
        if self.source:
            return replace(config, num_conditioning_frames=continuation.frames_to_read(config, self.source))
        return (
            replace(config, num_conditioning_frames=image_start.num_image_frames(config))
            if self.request.image
            else config
        )


def known_options(model: str) -> frozenset[str]:
    """The options of a model's new videos. Raises: ModelError."""
    model_options = frozenset(option.key for option in registry.find(model).options)
    fields = field_names(Request) | field_names(ExecutionConfig) | field_names(Output)
    return (fields | {"aspect", "at"} | model_options) - INTERNAL_FIELDS


def _check_names(names: Iterable[str], known_names: frozenset[str]) -> None:
    """Reject unknown options, and those that the call sets itself. Raises: UsageError."""
    if unknown := sorted({*names} - known_names):
        close = nearest_option(unknown[0], sorted(known_names))
        hint = f"did you mean {close}?" if close else f"known: {', '.join(sorted(known_names))}"
        raise UsageError(f"unknown option {unknown[0]!r}", COMMAND_ONLY.get(unknown[0], hint))
