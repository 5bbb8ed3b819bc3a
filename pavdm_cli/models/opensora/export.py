"""Writes a trained transformer as a folder in the published layout, with links to its VAE and text encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.errors import OutputError
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.hub.links import link_or_copy

UNCHANGED = ("vae", "text_encoder")  # parts that training does not change


def export(weights: dict[str, Tensor], source: Path, folder: Path, metadata: dict[str, Any]) -> Path:
    """Write the weights with the source's configuration, and link to its other parts. Returns the folder.

    Raises: ModelError, OutputError.
    """
    part = folder / "transformer"
    config = read_json(source / "transformer" / "config.json")
    precision = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    try:
        part.mkdir(parents=True, exist_ok=True)
        for name in UNCHANGED:
            _link((source / name).resolve(), folder / name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}", "free some space, or choose another folder") from error
    with atomic_write(part / "config.json") as temporary:
        temporary.write_text(json.dumps(config | {"torch_dtype": precision}, indent=2), encoding="utf-8")
    with atomic_write(part / "model.safetensors") as temporary:
        save_file(weights, temporary, {"format": "pt", "about": json.dumps(metadata)})
    return folder


def _link(source: Path, target: Path) -> None:
    """Replace a link, but not a folder."""
    if target.is_symlink():
        target.unlink()
    if not target.exists():
        link_or_copy(source, target)
