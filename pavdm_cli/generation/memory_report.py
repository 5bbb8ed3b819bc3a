"""Formats a memory plan as a table or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_plan import STAGES, Budget
from pavdm_cli.hub.weight_memory import gigabytes


def notes(asked: GenerationConfig, chosen: GenerationConfig) -> list[str]:
    """Notes on settings that were changed to fit in memory."""
    before, execution = asked.execution, chosen.execution
    said = []
    if execution.cfg_batching == "sequential" != before.cfg_batching:
        said.append("guidance runs in two sequential forward passes: a single batch does not fit in memory")
    if execution.overlap_decode != before.overlap_decode:
        said.append("decoding does not overlap denoising: both together do not fit in memory")
    if execution.vae_tiling == "on" != before.vae_tiling:
        said.append("the VAE runs in overlapping, blended tiles to save memory")
    elif execution.decode_batch < before.decode_batch:
        said.append("the VAE processes one frame at a time to save memory")
    return said


def table(found: Budget) -> list[tuple[str, ...]]:
    """One row per part, one column per stage, and the free memory."""
    rows: list[tuple[str, ...]] = []
    for place in found.places:
        rows += [(name, *map(_cell, part)) for name, part in place.parts.items()]
        rows.append((f"total on {place.device.type}", *map(_cell, place.needs)))
        free = "unknown" if place.free is None else gigabytes(place.free)
        rows.append((f"free on {place.device.type}", free, "", ""))
    return rows


def _cell(size: int) -> str:
    return gigabytes(size) if size else "-"


def figures(found: Budget) -> dict[str, Any]:
    """The same in bytes, for scripts."""
    execution = asdict(found.config.execution)
    places = [
        {"device": one.device.type, "free": one.free, "parts": one.parts, "needs": one.needs} for one in found.places
    ]
    settings = {
        name: execution[name] for name in ("offload", "cfg_batching", "overlap_decode", "decode_batch", "vae_tiling")
    }
    return {"stages": STAGES, "places": places, "fits": found.fits, "settings": settings}
