"""Checkpoints: everything needed to continue a video, in one safetensors file per chunk.

A checkpoint refers to a prefix of the partial file, which is flushed to disk first. It holds no KV cache and
no VAE features: those are recomputed from latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from pavdm_cli.errors import InputError, PavdmError
from pavdm_cli.generation import stored_request
from pavdm_cli.generation.decode import RenderState
from pavdm_cli.generation.request import Request
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.runtime.durable import write_durably
from pavdm_cli.runtime.untrusted import InvalidError
from pavdm_cli.sampling.loop import SamplerState
from pavdm_cli.video.write.encode import EncoderState

FORMAT = 1
_NAMES = [field.name for field in fields(SamplerState)]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The part that is the same in all checkpoints of a video."""

    name: str  # name of the complete file
    request: Request  # with everything decided
    metadata: Mapping[str, Any]  # stored in the video
    machine: str  # the processor or GPU
    total: int  # frames of the whole video
    inputs: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the input files, by path


class LatentsPrefix(NamedTuple):
    """The part of the file of latents that a checkpoint refers to."""

    size: int  # bytes; 0: no latents are stored yet
    digest: str  # SHA-256; empty: there is no file


NO_LATENTS = LatentsPrefix(0, "")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of an interrupted video."""

    run: RunInfo
    file: EncoderState
    render: RenderState
    notes: tuple[str, ...] = ()  # for the user, at the end
    latents: LatentsPrefix = NO_LATENTS

    @property
    def needs_rewrite(self) -> bool:
        """Whether the file cannot be continued: all frames are written again, from the latents."""
        return self.latents.size > 0 and not self.file.digest


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Store a checkpoint in place of the last one. Raises: OSError."""
    tensors = _tensors(checkpoint)
    text = json.dumps(_fields(checkpoint), separators=(",", ":"))
    write_durably(path, [save(tensors, {"pavdm": text, "sha256": _digest(text, tensors)})])


def read_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint; the video is written next to it. Raises: InputError."""
    try:
        with open_weights(path) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 the file is not iterable
        text = header["pavdm"]
        if header["sha256"] != _digest(text, tensors):
            raise InvalidError("its checksum differs")
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise InvalidError(f"it has format {values['format']}, and this version reads {FORMAT}")
        return _checkpoint(values, tensors, path.parent)
    except (OSError, SafetensorError, InvalidError, KeyError, TypeError, ValueError, PavdmError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = f"`pavdm extend` can still continue {path.with_suffix('').name} from its last frames"
        raise InputError(f"cannot read the checkpoint {path}: {reason}", hint) from None


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    run, file, render, sampler = checkpoint.run, checkpoint.file, checkpoint.render, checkpoint.render.sampler
    return {
        "format": FORMAT,
        "request": stored_request.to_json(run.request),
        "run": {name: getattr(run, name) for name in ("name", "metadata", "machine", "total", "inputs")},
        "file": {name: getattr(file, name) for name in ("written", "last_time", "segments", "size", "digest", "times")},
        "render": {"latents": render.num_latents, "frames": render.frames},
        "sampler": {name: _to_json(value) for name, value in _values(sampler).items() if _is_json(value)},
        "notes": checkpoint.notes,
        "latents": checkpoint.latents,
    }


def _values(state: SamplerState) -> dict[str, Any]:
    """All fields of a state except its history."""
    return {name: getattr(state, name) for name in _NAMES if name != "history"}


def _is_json(value: object) -> bool:
    return not (value is None or isinstance(value, Tensor))


def _to_json(value: Any) -> Any:
    return [value.start, value.stop] if isinstance(value, range) else value


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    render, sampler = checkpoint.render, checkpoint.render.sampler
    tensors = {name: value for name, value in _values(sampler).items() if isinstance(value, Tensor)}
    tensors |= {f"history.{number}": values for number, values in enumerate(sampler.history)}
    optional = {"decoder.context": render.context, "decoder.replay": render.replay}
    tensors |= {name: values for name, values in optional.items() if values is not None}
    tensors["frames"] = torch.from_numpy(checkpoint.file.frames)
    return {name: values.contiguous() for name, values in tensors.items()}


def _checkpoint(values: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Checkpoint:
    run, file, sampler = values["run"], values["file"], dict(values["sampler"])
    sampler["chunks"] = range(*sampler["chunks"])
    history = [tensors[f"history.{number}"] for number in range(sum(name.startswith("history.") for name in tensors))]
    state_tensors: dict[str, Any] = {name: tensors[name] for name in _NAMES if name in tensors}
    state = SamplerState(**sampler, **state_tensors, history=tuple(history))
    decoder = tensors.get("decoder.context"), tensors.get("decoder.replay")
    return Checkpoint(
        RunInfo(request=stored_request.from_json(values["request"], folder / run["name"]), **run),
        EncoderState(**file | {"times": tuple(file["times"]), "frames": tensors["frames"].numpy()}),
        RenderState(state, *decoder, values["render"]["latents"], values["render"]["frames"]),
        tuple(values["notes"]),
        LatentsPrefix(*values["latents"]),
    )


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything in a checkpoint."""
    digest = hashlib.sha256(text.encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
