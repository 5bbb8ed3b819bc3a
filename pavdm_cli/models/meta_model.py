"""A model without contents: sizes from its configuration, and what a job of it takes, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import shapes, tensors
from pavdm_cli.hub.weights_dir import home
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.families import Codec
from pavdm_cli.models.load import Loaded
from pavdm_cli.models.memory_tracker import Live, peak_of, standing_for
from pavdm_cli.models.opensora import config as opensora
from pavdm_cli.models.opensora.vae import OpenSoraVAE, VAEConfig, vae_config
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import CodecConfig, PocketCodec
from pavdm_cli.models.specs import ModelSpec
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.cuda_graphs import max_captured_latents, tensors_of
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import denoise_step
from pavdm_cli.sampling.noise import NoiseLevels, noise_levels
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import euler

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Shown:
    """What is run: how, with which guidance, and how many noisy and clean latents a step shows at most."""

    schedule: Schedule
    engine: Engine
    guidance: float
    noisy: int
    clean: int


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
    anew: int  # latents to frames and back, between steps
    decoding: int  # a group of latents to frames


def sketch(spec: ModelSpec, device: torch.device, pictures: int = 4, tiled: bool = False) -> Loaded:
    """The model as it will be on a device, without contents; a part that is not there has its published size.

    pictures: of 240p that the codec works on at a time; tiled: each in tiles. Raises: ModelError.
    """
    if spec.family == "pocket":
        with META:
            pocket, small = Pocket(PocketConfig()), PocketCodec(CodecConfig())
        return _loaded(spec, small, pocket.stdit, torch.float32)
    folder = home(spec)
    config = opensora.read_config(folder) if (folder / "transformer").is_dir() else opensora.XL2
    sizes = vae_config(shapes(tensors(folder / "vae"))) if (folder / "vae").is_dir() else VAEConfig()
    with META:
        denoiser, codec = STDiT(config), OpenSoraVAE(sizes, pictures)
    codec.tile(tiled)
    return _loaded(spec, codec, denoiser, opensora.precision(device))


def _loaded(spec: ModelSpec, codec: Codec, denoiser: STDiT, dtype: torch.dtype) -> Loaded:
    assert isinstance(codec, nn.Module)
    for part in (codec, denoiser):
        part.to(META, dtype).eval().requires_grad_(False)  # the rotary frequencies are made with contents
    return Loaded(spec, codec, denoiser, opensora.RandomText(denoiser.config.text_width), META, "")


def weights_of(module: object) -> int:
    """Bytes of a part's weights and buffers."""
    assert isinstance(module, nn.Module)
    return sum(value.nbytes for value in module.state_dict().values())


def count(model: Loaded, shown: Shown, device: torch.device) -> Counted:
    """What a job takes on a device beside weights, counted on its sketch; one with weights is really run."""
    with torch.no_grad(), standing_for(device, _dtype(model)), Live() as live:
        bound = _bound(model, shown)
        constants = live.now
        live.forget_peak()
        memory = bound.prefill(_latents(model, shown.clean), 0) if shown.clean else None
        kept, recalling = live.now - constants, live.peak - constants
        working = peak_of(live, lambda: _step(model, bound, shown, memory))
        graphs = peak_of(live, lambda: _recorded(model, bound, shown, memory, device))
    return Counted(constants, kept, max(working, recalling), graphs)


def count_coding(model: Loaded, device: torch.device, given: int = 0, anew: int = 0) -> Coding:
    """What the codec works with, counted like the others, for `given` frames on the host and `anew` latents."""
    decode, encode, group = model.codec.decode, model.codec.encode, model.spec.group
    frames = torch.zeros(1, min(given, group[1]), 3, *model.spec.size, device=model.device)  # one group comes at a time
    with torch.no_grad(), standing_for(device, _dtype(model)), Live() as live:
        decoding = peak_of(live, lambda: decode(_latents(model, group[0])))
        again = peak_of(live, lambda: encode(decode(_latents(model, anew)))) if anew else 0
        first = peak_of(live, lambda: encode(frames if device.type == "cpu" else frames.clone())) if given else 0
    return Coding(first, again, decoding)


def _bound(model: Loaded, shown: Shown) -> Denoiser:
    """FunctionDenoiser to the longest prompt that the model reads."""
    config, rows = model.denoiser.config, 1 if shown.guidance == 1 else 2
    words = torch.zeros(rows, config.text_length, config.text_width, device=model.device, dtype=_dtype(model))
    levels = _levels(model, shown)
    return model.bind_words((words, None), shown.schedule, levels, shown.guidance, shown.engine)


def _step(model: Loaded, bound: Denoiser, shown: Shown, memory: Any) -> object:
    levels = torch.zeros(shown.noisy, dtype=torch.int32, device=model.device)
    solver = euler(_levels(model, shown))
    window = _latents(model, shown.noisy)
    return denoise_step(window, levels, memory, solver.history(window), denoiser=bound, solver=solver)


def _recorded(model: Loaded, bound: Denoiser, shown: Shown, memory: Any, device: torch.device) -> object:
    """The largest step that is recorded, and a copy of what it is given."""
    most = max_captured_latents(shown.engine.cuda_graphs, device, model.stream(shown.guidance))
    clean = shown.clean if shown.noisy + shown.clean <= most else 0
    chunks = int(min(most - clean, shown.noisy)) // shown.schedule.chunk
    if chunks < 1 or shown.engine.unrecordable:
        return None
    given = memory if clean else None
    held = [torch.empty_like(tensor) for tensor in tensors_of(given)]
    return held, _step(model, bound, replace(shown, noisy=chunks * shown.schedule.chunk), given)


def _latents(model: Loaded, length: int) -> Tensor:  # (1, T, C, h, w)
    return torch.zeros(1, length, *model.noise_shape()[1:], device=model.device)


def _levels(model: Loaded, shown: Shown) -> NoiseLevels:
    return noise_levels(torch.zeros(shown.schedule.steps + 1, device=model.device))


def _dtype(model: Loaded) -> torch.dtype:
    return model.denoiser.x_embedder.proj.weight.dtype
