"""A trained transformer as a folder in the published layout, beside the codec and text encoder it was trained with."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.errors import OutputError
from pavdm_cli.hub.atomic import in_place_of
from pavdm_cli.hub.checkpoint import read_json

KEPT = ("vae", "text_encoder")  # parts that training leaves as they are


def export(weights: dict[str, Tensor], source: Path, folder: Path, metadata: dict[str, Any]) -> Path:
    """Write the weights with the source's configuration, and link to its other parts. Returns the folder.

    Raises: ModelError, OutputError.
    """
    part = folder / "transformer"
    config = read_json(source / "transformer" / "config.json")
    precision = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    try:
        part.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            _link((source / name).resolve(), folder / name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}", "free some space, or choose another folder") from error
    with in_place_of(part / "config.json") as beside:
        beside.write_text(json.dumps(config | {"torch_dtype": precision}, indent=2), encoding="utf-8")
    with in_place_of(part / "model.safetensors") as beside:
        save_file(weights, beside, {"format": "pt", "about": json.dumps(metadata)})
    return folder


def _link(source: Path, place: Path) -> None:
    """A link; where links need rights one does not have, the files under a second name, or at worst copied."""
    if place.is_symlink():
        place.unlink()
    if place.exists():
        return
    with suppress(OSError, NotImplementedError):
        place.symlink_to(source, target_is_directory=True)
        return
    shutil.copytree(source, place, copy_function=_link_file)


def _link_file(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)
