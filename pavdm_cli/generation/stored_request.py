"""Conversion of a fully resolved request to and from the JSON in checkpoints."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Extension, Output, RedoOptions, Request, field_names
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.lora_file import parse_lora
from pavdm_cli.models.registry import MODELS
from pavdm_cli.models.runner import ModelRunner


def build_resolved_request(config: GenerationConfig, model: ModelRunner, output: Output) -> Request:
    """The request with all choices made: it reproduces the video on the same machine, in any number of processes."""
    values = {name: getattr(config, name) for name in field_names(Request) & field_names(GenerationConfig)}
    if config.spec.is_resizable:
        values |= {"size": config.spec.size, "fps": config.spec.fps}
    execution = replace(config.execution, attention=model.attention.name, processes=1)
    return Request(**values | {"model": config.spec.name, "execution": execution, "output": output})


def to_json(request: Request) -> dict[str, Any]:
    """As JSON with absolute paths. The output path is omitted: the checkpoint is next to it."""
    fields = asdict(replace(request, output=replace(request.output, path=None)))
    output = fields["output"]
    fields |= {"options": dict(request.options), "model": absolute_if_path(request.model)}
    fields["lora"] = [_absolute_lora_path(text) for text in request.lora]
    output["ffmpeg"] = absolute_if_path(request.output.ffmpeg)
    fields["image"] = str(request.image.absolute()) if request.image else None
    if request.extension:
        fields["extension"]["source"] = str(request.extension.source.absolute())
    if request.redo:
        fields["redo"]["source"] = str(request.redo.source.absolute())
    return fields


def absolute_if_path(text: str) -> str:
    """The absolute path if `text` names an existing file or folder, else `text`."""
    return str(Path(text).absolute()) if text and text not in MODELS and Path(text).exists() else text


def _absolute_lora_path(text: str) -> str:
    adapter = parse_lora(text)
    return f"{adapter.path.absolute()}:{adapter.scale}"


def from_json(fields: dict[str, Any], path: Path) -> Request:
    """The request, whose output is `path`. Raises: KeyError, TypeError, ValueError, UsageError."""
    extension, image = fields["extension"], fields["image"]
    if extension:
        extension = Extension(**extension | {"source": Path(extension["source"])})
    size, redo = fields["size"], fields["redo"]
    return Request(
        **fields
        | {
            "size": tuple(size) if size else None,
            "lora": tuple(fields["lora"]),
            "timeline": tuple(PromptChange(**change) for change in fields["timeline"]),
            "execution": ExecutionConfig(**fields["execution"]),
            "output": Output(**fields["output"] | {"path": path}),
            "extension": extension,
            "image": Path(image) if image else None,
            "redo": RedoOptions(**redo | {"source": Path(redo["source"])}) if redo else None,
        }
    )
