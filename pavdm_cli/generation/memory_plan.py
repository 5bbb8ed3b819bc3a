"""Estimates a video's memory by part and stage before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_parts import LIBRARIES, STAGES, Stages, device_parts, host_parts, worker_bytes
from pavdm_cli.hub.weight_memory import free_bytes
from pavdm_cli.hub.weights_dir import weights_folder
from pavdm_cli.models import meta_model
from pavdm_cli.models.adapter import Placement, VideoModel
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.meta_model import MemoryCase, SamplingMemory, VAEMemory, meta_runner
from pavdm_cli.models.open_runner import placement_for
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec

BYTES_PER_PIXEL = 3 * torch.float32.itemsize  # bytes per pixel of a float32 frame
# For cuBLAS, cuDNN, Triton and the allocator: assumed, not measured.
RESERVED = {"cuda": 500_000_000, "mps": 500_000_000, "cpu": 250_000_000}


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one device: use by part and stage, and free bytes."""

    device: torch.device
    free: int | None  # bytes; None where that cannot be known
    parts: dict[str, Stages]

    @property
    def needs(self) -> Stages:
        """All parts together."""
        encode_text, encode_frames, denoise, decode = (sum(column) for column in zip(*self.parts.values(), strict=True))
        return encode_text, encode_frames, denoise, decode

    def overflowing_stages(self) -> list[int]:
        """Indices of the stages that do not fit."""
        return [i for i, need in enumerate(self.needs) if self.free is not None and need > self.free]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A configuration and its memory use on each device."""

    config: GenerationConfig
    devices: tuple[DeviceMemory, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage fits on every device whose free memory is known."""
        return not any(each.overflowing_stages() for each in self.devices)


def needs_memory_plan(config: GenerationConfig) -> bool:
    """Whether memory must be planned: not for the bundled model, which always fits."""
    return not config.spec.is_bundled


def choose_plan(config: GenerationConfig) -> MemoryPlan:
    """The fastest plan that fits, else the one that needs the least memory.

    Raises: ModelError.
    """
    for candidate in _candidates(config):
        plan = estimate_plan(candidate)
        if plan.fits:
            break
    return plan


def fits_unsharded(config: GenerationConfig) -> bool:
    """Whether each device can hold the whole transformer, without tiling, which changes frames."""
    unsharded_config = replace(
        config.with_execution(shard_weights="off"), auto_switches=config.auto_switches - {"vae_tiling"}
    )
    overflows = (each.overflowing_stages() for each in choose_plan(unsharded_config).devices)
    return not any(stage > STAGES.index("encode text") for stages in overflows for stage in stages)


def _candidates(config: GenerationConfig) -> Iterator[GenerationConfig]:
    """Configurations of the same video from fastest to smallest; tiling comes last because it changes frames.

    Only switches left at `auto` vary.
    """

    def choices(name: str, smallest: str | int) -> tuple[Any, ...]:
        value = getattr(config.execution, name)
        return (value, smallest) if name in config.auto_switches and value != smallest else (value,)

    batching = choices("cfg_batching", "sequential") if config.guidance_scale != 1 else (config.execution.cfg_batching,)
    overlaps, tilings = choices("overlap_decode", "off"), choices("vae_tiling", "on")
    batches = choices("vae_batch_size", 1)
    for tiling, cfg, overlap_decode, batch in product(tilings, batching, overlaps, batches):
        yield config.with_execution(
            cfg_batching=cfg, overlap_decode=overlap_decode, vae_batch_size=batch, vae_tiling=tiling
        )


def estimate_plan(config: GenerationConfig) -> MemoryPlan:
    """Estimate the memory of a configuration."""
    device = config.device
    text_device, model = config.text_device, meta_model_of(config)
    sampling = _sampling_memory(model_key(config), largest_step(config))
    execution, num_frames = config.execution, config.num_conditioning_frames
    vae_inputs = (num_frames, config.schedule.context * _reencodes(config))
    vae_memory = _vae_memory(model_key(config), execution.vae_batch_size, execution.vae_tiling, vae_inputs)
    on_device = device_parts(model, sampling, vae_memory, execution, device)
    on_device[LIBRARIES] = (RESERVED[device.type],) * 4
    if execution.processes > 1 and device == HOST:
        on_device["other processes"] = (worker_bytes(on_device) * (execution.processes - 1),) * 4
    on_host = host_parts(model, execution)
    on_host["conditioning frames"] = (0, BYTES_PER_PIXEL * num_frames * math.prod(config.spec.size), 0, 0)
    text_parts = {f"text encoder, {part}": (size, 0, 0, 0) for part, size in text_bytes(config).items()}
    parts_by_device: dict[torch.device, dict[str, Stages]] = {device: {}}
    for target_device, parts in ((text_device, text_parts), (device, on_device), (HOST, on_host)):
        parts_by_device.setdefault(target_device, {}).update(parts)
    devices = [_device_memory(each, parts, encodes=any(vae_inputs)) for each, parts in parts_by_device.items()]
    return MemoryPlan(config, tuple(each for each in devices if each.parts))


# Candidates often differ in one part only, so each part's estimate is cached.
# The key: model, its spec at the size of the video, folder of its weights (None if not downloaded), device, precision.
ModelKey = tuple[VideoModel, ModelSpec, Path | None, str, str]


def model_key(config: GenerationConfig) -> ModelKey:
    """Cache key of a meta-device model."""
    folder = weights_folder(config.spec)
    weights = folder if folder.is_dir() else None  # sizes are published ones until the download
    return config.video_model, config.spec, weights, config.execution.device, config.execution.precision


def _smallest_execution(device: str, precision: str) -> ExecutionConfig:
    return ExecutionConfig(device=device, precision=precision, vae_batch_size=1)


def meta_model_of(config: GenerationConfig) -> ModelRunner:
    """The model on the meta device."""
    return _meta_model(model_key(config))


def _meta_model(key: ModelKey) -> ModelRunner:
    model, spec, weights, device, precision = key
    return _cached_meta_runner(model, spec, weights, placement_for(_smallest_execution(device, precision)))


@lru_cache
def _cached_meta_runner(model: VideoModel, spec: ModelSpec, _weights: Path | None, placement: Placement) -> ModelRunner:
    return meta_runner(model, spec, placement)


def text_bytes(config: GenerationConfig) -> dict[str, int]:
    """Bytes to encode the prompts, by part; empty without a prompt."""
    if not config.prompt and not config.spec.empty_prompt:
        return {}
    placement = placement_for(
        _smallest_execution(config.execution.device, config.execution.precision), config.text_device
    )
    encoder = config.video_model.load_text_encoder(placement, "meta")
    return max((encoder.memory_bytes(prompt.text) for prompt in config.prompts), key=lambda parts: sum(parts.values()))


@lru_cache
def _sampling_memory(key: ModelKey, step: MemoryCase) -> SamplingMemory:
    return meta_model.estimate_sampling_memory(_meta_model(key), step, torch.device(key[-2]))


@lru_cache
def _vae_memory(key: ModelKey, vae_batch_size: int, vae_tiling: str, vae_inputs: tuple[int, int]) -> VAEMemory:
    model, spec, weights, device, precision = key
    execution = replace(_smallest_execution(device, precision), vae_batch_size=vae_batch_size, vae_tiling=vae_tiling)
    return meta_model.estimate_vae_memory(
        _cached_meta_runner(model, spec, weights, placement_for(execution)), torch.device(device), *vae_inputs
    )


def _reencodes(config: GenerationConfig) -> bool:
    """Whether latents are decoded and encoded again between steps."""
    return config.total_chunks > 1 and config.reencode


def _device_memory(device: torch.device, parts: dict[str, Stages], encodes: bool) -> DeviceMemory:
    """Memory of a device, without the encode stage if nothing is encoded."""
    parts_needed = {name: (part[0], part[1] * encodes, part[2], part[3]) for name, part in parts.items()}
    return DeviceMemory(device, free_bytes(device), {name: part for name, part in parts_needed.items() if any(part)})


def largest_step(config: GenerationConfig) -> MemoryCase:
    """The largest step of a video, including re-noised chunks of a conditioning clip."""
    schedule, texts = config.schedule, 2 if config.timeline else 1
    latents = config.num_conditioning_latents
    num_renoised = schedule.num_renoised(latents)
    sizes = schedule.sizes(0, -num_renoised, latents - num_renoised * schedule.chunk, config.chunks_to_sample)
    noisy, clean = max(sizes, key=lambda pair: (sum(pair), pair))
    graphs = "off" if config.graph_conflict else config.execution.cuda_graphs
    execution = replace(config.execution, vae_batch_size=1, vae_tiling="off", offload="none", cuda_graphs=graphs)
    guidance = 1.0 if config.execution.processes > 1 else config.guidance_scale  # each process runs one pass
    return MemoryCase(schedule, execution, guidance, noisy, clean, config.solver, texts=texts)
