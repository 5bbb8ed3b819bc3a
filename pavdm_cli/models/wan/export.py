"""Writes a trained transformer as a folder in the layout of its source, with links to the other parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.errors import OutputError
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.links import link_or_copy
from pavdm_cli.models.wan.checkpoint import is_original, transformer_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"


def export(weights: dict[str, Tensor], source: Path, folder: Path, metadata: dict[str, Any]) -> Path:
    """Write the weights under the source's names, and link to its configuration and other files. Returns the folder.

    Raises: ModelError, OutputError.
    """
    source_tensors, target_folder = (
        transformer_tensors(source),
        folder if is_original(source) else folder / "transformer",
    )
    replaced_names = {path.name for path in source_tensors.files.values()} | {
        path.name for path in source_tensors.folder.glob("*.index.json")
    }
    try:
        target_folder.mkdir(parents=True, exist_ok=True)
        _link_others(source, folder, {"transformer"} if target_folder != folder else replaced_names)
        if target_folder != folder:
            _link_others(source_tensors.folder, target_folder, replaced_names)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}", "free some space, or choose another folder") from error
    tensors = {source_tensors.name_in_file(name): weight for name, weight in weights.items()}
    with atomic_write(target_folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, {"format": "pt", "about": json.dumps(metadata)})
    return folder


def _link_others(source: Path, folder: Path, excluded_names: set[str]) -> None:
    """Link to all visible entries of a folder but the excluded ones."""
    for entry in sorted(source.iterdir()):
        target = folder / entry.name
        if entry.name in excluded_names or entry.name.startswith(".") or target.exists():
            continue
        if target.is_symlink():
            target.unlink()
        link_or_copy(entry.resolve(), target)
