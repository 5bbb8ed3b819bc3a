"""A model of meta tensors: the memory that a video takes, measured without weights and without computing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.models.adapter import Placement, TextEmbedding, VideoModel
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import MemoryTracker, emulate_device
from pavdm_cli.models.open_runner import open_runner
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.sampling.cuda_graphs import max_captured_latents, tensors_of
from pavdm_cli.sampling.denoiser import Denoiser, TextKV
from pavdm_cli.sampling.loop import denoise_step
from pavdm_cli.sampling.noise import NoiseLevels, noise_levels
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solvers import build_solver


@dataclass(frozen=True, slots=True)
class MemoryCase:
    """The largest step of a video: how it runs, and its noisy and clean latents."""

    schedule: Schedule
    execution: ExecutionConfig
    guidance: float
    noisy: int
    clean: int
    solver: str = "euler"
    texts: int = 1  # whose keys and values are in memory at once; more than one are an argument of captured steps


@dataclass(frozen=True, slots=True)
class SamplingMemory:
    """Bytes on the device while sampling, in addition to the weights."""

    constants: int  # keys and values of the text, modulation of all levels, positions
    kv_cache: int  # of the context
    step: int  # peak of a step or a prefill, in addition to the above
    graphs: int  # captured steps with their inputs


@dataclass(frozen=True, slots=True)
class VAEMemory:
    """Peak bytes of the VAE in addition to its weights."""

    encoding: int  # frames of a clip or an image, before the first step
    reencoding: int  # latents that are decoded and encoded again between steps
    decoding: int  # one unit of latents


def meta_runner(video_model: VideoModel, spec: ModelSpec, placement: Placement) -> ModelRunner:
    """The model as it would be on a device; a part that is not downloaded has its published size.

    Raises: ModelError.
    """
    return open_runner(video_model, spec, placement, init="meta")


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's weights and buffers."""
    return sum(value.nbytes for value in module.state_dict().values())


def estimate_sampling_memory(model: ModelRunner, case: MemoryCase, device: torch.device) -> SamplingMemory:
    """Memory of the largest step on a device; a meta model only propagates shapes, one with weights really runs."""
    with torch.no_grad(), emulate_device(device, model.model.dtype), MemoryTracker() as tracker:
        first, *other_texts = _texts(model, case)
        denoiser = model.bind(case.schedule, _levels(model, case), case.guidance, case.execution)(first)
        constants = tracker.now
        tracker.reset_peak()
        kv_cache = denoiser.prefill(_latents(model, case.clean), 0) if case.clean else None
        cache_size, prefill_peak = tracker.now - constants, tracker.peak - constants
        step_peak = tracker.peak_bytes(lambda: _step(model, denoiser, case, kv_cache))
        graphs = tracker.peak_bytes(lambda: _captured_step(model, denoiser, case, (kv_cache, *other_texts), device))
    return SamplingMemory(constants, cache_size, max(step_peak, prefill_peak), graphs)


def estimate_vae_memory(model: ModelRunner, device: torch.device, frames: int = 0, num_reencoded: int = 0) -> VAEMemory:
    """The same for the VAE: frames are encoded from the host, and `num_reencoded` latents between steps."""
    layout = model.layout
    # One unit at a time; a VAE whose first latent stands for fewer frames has a state, which is full after three.
    unit = layout.unit if layout.unit > 1 or layout.first == layout.rest else 3
    shape = (1, min(frames, layout.num_frames(unit)), 3, *model.spec.size)
    clip = torch.zeros(shape, device=model.device)
    with torch.no_grad(), emulate_device(device, model.model.dtype), MemoryTracker() as tracker:
        peak = tracker.peak_bytes
        decoding = peak(lambda: model.decode(_latents(model, unit)))
        reencoding = peak(lambda: model.encode(model.decode(_latents(model, num_reencoded)))) if num_reencoded else 0
        encoding = peak(lambda: model.encode(clip if device.type == "cpu" else clip.clone())) if frames else 0
    return VAEMemory(encoding, reencoding, decoding)


def _texts(model: ModelRunner, case: MemoryCase) -> list[TextKV]:
    """Keys and values of the longest prompt that the model reads, as often as there are prompts in memory."""
    length, width = model.model.text_shape
    embedding = TextEmbedding(torch.zeros(length, width, device=model.device, dtype=model.model.dtype))
    text = [embedding] * (1 if case.guidance == 1 else 2)
    return [model.text_kv(text, case.schedule, case.execution) for _ in range(case.texts)]


def _step(model: ModelRunner, denoiser: Denoiser, case: MemoryCase, kv_cache: Any) -> object:
    levels = torch.zeros(case.noisy, dtype=torch.int32, device=model.device)
    solver = build_solver(case.solver, _levels(model, case))
    window = _latents(model, case.noisy)
    return denoise_step(window, levels, kv_cache, solver.history(window), denoiser=denoiser, solver=solver)


def _captured_step(
    model: ModelRunner, denoiser: Denoiser, case: MemoryCase, arguments: tuple[Any, ...], device: torch.device
) -> object:
    """The largest step that is captured as a CUDA graph, and its static input buffers: of the cache, then of a text."""
    limit = max_captured_latents(case.execution.cuda_graphs, device, model.residual_values(case.guidance))
    clean = case.clean if case.noisy + case.clean <= limit else 0
    chunks = int(min(limit - clean, case.noisy)) // case.schedule.chunk
    if chunks < 1 or case.execution.graph_conflict:
        return None
    kv_cache, *text = arguments
    cache = kv_cache if clean else None
    buffers = [torch.empty_like(tensor) for tensor in tensors_of((cache, *text))]
    return buffers, _step(model, denoiser, replace(case, noisy=chunks * case.schedule.chunk), cache)


def _latents(model: ModelRunner, length: int) -> Tensor:  # (1, T, C, h, w)
    return torch.zeros(1, length, *model.noise_shape()[1:], device=model.device)


def _levels(model: ModelRunner, case: MemoryCase) -> NoiseLevels:
    return noise_levels(torch.zeros(case.schedule.steps + 1, device=model.device))
