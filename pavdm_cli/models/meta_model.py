"""A model without contents: sizes from its configuration, and what a video of it takes, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.models.adapter import Placement, TextEmbedding, VideoModel
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import Live, peak_of, standing_for
from pavdm_cli.models.runner import ModelRunner, open_runner
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.sampling.cuda_graphs import max_captured_latents, tensors_of
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import denoise_step
from pavdm_cli.sampling.noise import NoiseLevels, noise_levels
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solvers import solver_of


@dataclass(frozen=True, slots=True)
class MemoryCase:
    """What is run: how, with which guidance, and how many noisy and clean latents a step shows at most."""

    schedule: Schedule
    execution: ExecutionConfig
    guidance: float
    noisy: int
    clean: int
    solver: str = "euler"


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes on the device, part by part."""

    constants: int  # keys and values of the text, modulation of all levels, positions
    memory: int  # kept of the overlap from shift to shift
    step: int  # the most that a step or a shift holds beside these
    graphs: int  # recorded steps, their arguments included


@dataclass(frozen=True, slots=True)
class Coding:
    """The most bytes that the codec holds beside its weights: for frames that are given, for some anew, for latents."""

    given: int  # frames of a clip or a picture to latents, before the first step
    reencoded: int  # latents to frames and back, between steps
    decoding: int  # a group of latents to frames


def meta_runner(video_model: VideoModel, spec: ModelSpec, placement: Placement) -> ModelRunner:
    """The model as it will be on a device, without contents; a part that is not there has its published size.

    Raises: ModelError.
    """
    return open_runner(video_model, spec, placement, init="meta")


def weights_of(module: nn.Module) -> int:
    """Bytes of a part's weights and buffers."""
    return sum(value.nbytes for value in module.state_dict().values())


def count(model: ModelRunner, shown: MemoryCase, device: torch.device) -> Counted:
    """What a video takes on a device beside weights, counted on the meta device; one with weights is really run."""
    with torch.no_grad(), standing_for(device, model.model.dtype), Live() as live:
        bound = _bound(model, shown)
        constants = live.now
        live.forget_peak()
        memory = bound.prefill(_latents(model, shown.clean), 0) if shown.clean else None
        kept, recalling = live.now - constants, live.peak - constants
        working = peak_of(live, lambda: _step(model, bound, shown, memory))
        graphs = peak_of(live, lambda: _recorded(model, bound, shown, memory, device))
    return Counted(constants, kept, max(working, recalling), graphs)


def count_coding(model: ModelRunner, device: torch.device, given: int = 0, anew: int = 0) -> Coding:
    """What the VAE works with, counted like the others, for `given` frames on the host and `anew` latents."""
    layout = model.layout
    # One unit comes at a time; a VAE whose first latent stands for fewer frames has a state, full after three latents.
    unit = layout.unit if layout.unit > 1 or layout.first == layout.rest else 3
    shape = (1, min(given, layout.count(unit)), 3, *model.spec.size)
    frames = torch.zeros(shape, device=model.device)
    with torch.no_grad(), standing_for(device, model.model.dtype), Live() as live:
        decoding = peak_of(live, lambda: model.decode(_latents(model, unit)))
        again = peak_of(live, lambda: model.encode(model.decode(_latents(model, anew)))) if anew else 0
        first = peak_of(live, lambda: model.encode(frames if device.type == "cpu" else frames.clone())) if given else 0
    return Coding(first, again, decoding)


def _bound(model: ModelRunner, shown: MemoryCase) -> Denoiser:
    """With the longest prompt that the model reads."""
    length, width = model.model.text_shape
    rows = torch.zeros(length, width, device=model.device, dtype=model.model.dtype)
    embedding = TextEmbedding(rows)
    text = [embedding] * (1 if shown.guidance == 1 else 2)
    return model.denoiser_of(text, shown.schedule, _levels(model, shown), shown.guidance, shown.execution)


def _step(model: ModelRunner, bound: Denoiser, shown: MemoryCase, memory: Any) -> object:
    levels = torch.zeros(shown.noisy, dtype=torch.int32, device=model.device)
    solver = solver_of(shown.solver, _levels(model, shown))
    window = _latents(model, shown.noisy)
    return denoise_step(window, levels, memory, solver.history(window), denoiser=bound, solver=solver)


def _recorded(model: ModelRunner, bound: Denoiser, shown: MemoryCase, memory: Any, device: torch.device) -> object:
    """The largest step that is recorded, and a copy of what it is given."""
    most = max_captured_latents(shown.execution.cuda_graphs, device, model.residual_values(shown.guidance))
    clean = shown.clean if shown.noisy + shown.clean <= most else 0
    chunks = int(min(most - clean, shown.noisy)) // shown.schedule.chunk
    if chunks < 1 or shown.execution.uncapturable:
        return None
    given = memory if clean else None
    held = [torch.empty_like(tensor) for tensor in tensors_of(given)]
    return held, _step(model, bound, replace(shown, noisy=chunks * shown.schedule.chunk), given)


def _latents(model: ModelRunner, length: int) -> Tensor:  # (1, T, C, h, w)
    return torch.zeros(1, length, *model.noise_shape()[1:], device=model.device)


def _levels(model: ModelRunner, shown: MemoryCase) -> NoiseLevels:
    return noise_levels(torch.zeros(shown.schedule.steps + 1, device=model.device))
