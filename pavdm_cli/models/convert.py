"""Pickled weights to safetensors: tensors only, nothing that they ask to run is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.models.checkpoint import PICKLED
from pavdm_cli.models.store import in_place_of

UNWRAPPED = ("state_dict", "model", "module", "ema")  # names under which training scripts put the tensors


def convert(folder: Path) -> list[Path]:
    """Write each pickled file of a folder as safetensors beside it. Raises: ModelError, OutputError."""
    found = sorted(path for kind in PICKLED for path in folder.glob(kind))
    if not found:
        raise ModelError(f"no pickled weights in {folder}", f"looked for {', '.join(PICKLED)}")
    return [_convert(path) for path in found]


def _convert(path: Path) -> Path:
    target = path.with_suffix(".safetensors")
    if target.exists():
        raise ModelError(f"{target} is there already", "delete it to convert again")
    tensors = _read(path)
    with in_place_of(target) as beside:
        save_file(tensors, beside, {"format": "pt"})
    return target


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors, mapped where the file allows; one that shares its memory with another is copied."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} holds more than tensors, or is cut short", "it was not loaded") from error
    while isinstance(loaded, dict) and (inside := next((name for name in UNWRAPPED if name in loaded), None)):
        loaded = loaded[inside]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{path} holds no list of tensors", "is it a file of weights?")
    seen: set[int] = set()
    tensors = {}
    for name, value in loaded.items():
        shared = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        tensors[str(name)] = value.clone() if shared else value.contiguous()
    return tensors
