"""Formats a memory plan as a table or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_parts import STAGES, worker_bytes
from pavdm_cli.generation.memory_plan import MemoryPlan
from pavdm_cli.hub.weight_memory import gigabytes


def notes(config: GenerationConfig, planned_config: GenerationConfig) -> list[str]:
    """Notes on settings that were changed to fit in memory."""
    before, execution = config.execution, planned_config.execution
    lines = []
    if execution.cfg_batching == "sequential" != before.cfg_batching:
        lines.append("guidance runs in two sequential forward passes: a single batch does not fit in memory")
    if execution.overlap_decode != before.overlap_decode:
        lines.append("decoding does not overlap denoising: both together do not fit in memory")
    if execution.vae_tiling == "on" != before.vae_tiling:
        lines.append("the VAE runs in overlapping, blended tiles to save memory")
    elif execution.vae_batch_size < before.vae_batch_size:
        lines.append("the VAE processes one frame at a time to save memory")
    return lines


def format_rows(plan: MemoryPlan) -> list[tuple[str, ...]]:
    """One row per part, one column per stage, and the free memory; several processes have a GPU each."""
    rows: list[tuple[str, ...]] = []
    for device_memory in plan.devices:
        rows += [(name, *map(_cell, part)) for name, part in device_memory.parts.items()]
        several = plan.config.execution.processes > 1 and device_memory.device.type != "cpu"
        rows.append((f"total on {device_memory.device.type}{' of rank 0' * several}", *map(_cell, device_memory.needs)))
        if several:
            needs = _cell(worker_bytes(device_memory.parts))
            rows.append((f"total on {device_memory.device.type} of each other rank", "-", "-", needs, needs))
        free = "unknown" if device_memory.free is None else gigabytes(device_memory.free)
        rows.append((f"free on {device_memory.device.type}", free, "", ""))
    return rows


def _cell(size: int) -> str:
    return gigabytes(size) if size else "-"


def plan_to_json(plan: MemoryPlan) -> dict[str, Any]:
    """The same in bytes, for scripts."""
    execution = asdict(plan.config.execution)
    devices = [
        {"device": each.device.type, "free": each.free, "parts": each.parts, "needs": each.needs}
        for each in plan.devices
    ]
    names = ("offload", "cfg_batching", "overlap_decode", "vae_batch_size", "vae_tiling", "processes", "shard_weights")
    switches = {name: execution[name] for name in names}
    return {"stages": STAGES, "devices": devices, "fits": plan.fits, "settings": switches}
