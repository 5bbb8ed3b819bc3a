"""A request as checkpoints store it, with everything decided: the two functions between it and JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pavdm_cli.generation.pipeline import Job
from pavdm_cli.generation.request import Extension, Output, Request, Sampling
from pavdm_cli.models.adapters import parse_adapter
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.registry import MODELS
from pavdm_cli.models.runner import ModelRunner


def decided_request(job: Job, model: ModelRunner, output: Output) -> Request:
    """What makes the job again on the same machine, whatever memory and cores are free then."""
    sampling = job.sampling
    engine = replace(sampling.engine, attention=model.attention.name)
    threads, device = torch.get_num_threads(), model.device.type
    decided = replace(sampling, device=device, threads=threads, engine=engine)
    size, fps = (job.spec.size, job.spec.fps) if job.spec.size_multiple else (None, None)
    return Request(
        job.prompt,
        frames=job.frames,
        size=size,
        fps=fps,
        sampling=decided,
        output=output,
        source_caption=job.source_caption,
    )


def to_json(request: Request) -> dict[str, Any]:
    """As JSON, with paths that hold in every folder; the output's is left out, since a checkpoint is next to it."""
    fields = asdict(replace(request, output=replace(request.output, path=None)))
    sampling, output = fields["sampling"], fields["output"]
    sampling |= {"options": dict(request.sampling.options), "model": absolute(request.sampling.model)}
    sampling["lora"] = [_absolute_adapter(text) for text in request.sampling.lora]
    output["ffmpeg"] = absolute(request.output.ffmpeg)
    fields["image"] = str(request.image.absolute()) if request.image else None
    if request.extension:
        fields["extension"]["source"] = str(request.extension.source.absolute())
    return fields


def absolute(text: str) -> str:
    """A name, or the absolute path of a file or folder of that name."""
    return str(Path(text).absolute()) if text and text not in MODELS and Path(text).exists() else text


def _absolute_adapter(text: str) -> str:
    adapter = parse_adapter(text)
    return f"{adapter.path.absolute()}:{adapter.scale}"


def _sampling(fields: dict[str, Any]) -> Sampling:
    return Sampling(**fields | {"engine": Engine(**fields["engine"]), "lora": tuple(fields["lora"])})


def from_json(fields: dict[str, Any], path: Path) -> Request:
    """The request, whose output is `path`. Raises: KeyError, TypeError, ValueError, UsageError."""
    sampling, extension, image = fields["sampling"], fields["extension"], fields["image"]
    if extension:
        extension = Extension(**extension | {"source": Path(extension["source"])})
    size = fields["size"]
    return Request(
        **fields
        | {
            "size": tuple(size) if size else None,
            "sampling": _sampling(sampling),
            "output": Output(**fields["output"] | {"path": path}),
            "extension": extension,
            "image": Path(image) if image else None,
        }
    )
