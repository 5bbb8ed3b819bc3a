"""Loads a model with its text encoder, where its execution switches want it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from pavdm_cli.hub.checkpoint import digest_files
from pavdm_cli.models.adapter import Init, Options, Placement, VideoModel
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec


def open_runner(
    video_model: VideoModel,
    spec: ModelSpec,
    placement: Placement,
    *,
    init: Init = "weights",
    prompts: Sequence[str] = (),
    options: Options | None = None,
) -> ModelRunner:
    """Load a model. The prompts are encoded first, and stay in the encoder's cache, before other weights are loaded.

    Raises: ModelError, DeviceError.
    """
    text_encoder = video_model.load_text_encoder(placement, init)
    if init == "weights" and prompts:
        text_encoder.encode(prompts)
    digest = weights_digest(video_model, placement) if init == "weights" else init
    model, device = video_model.load(placement, init), placement.device
    device = torch.device("meta") if init == "meta" else device
    return ModelRunner(spec, video_model, model, text_encoder, device, digest, options or {})


def weights_digest(video_model: VideoModel, placement: Placement) -> str:
    """16 hexadecimal digits of the weights and of the LoRA files merged into them. Raises: ModelError."""
    base = video_model.digest()
    if not placement.lora:
        return base
    lora_digests = [f"{digest_files([adapter.path])} {adapter.scale}" for adapter in placement.lora]
    return hashlib.sha256(" ".join([base, *lora_digests]).encode()).hexdigest()[:16]


def placement_for(execution: ExecutionConfig, text_device: torch.device | None = None) -> Placement:
    """Where a model is loaded: on the host if its weights are then offloaded or sharded."""
    return Placement(
        torch.device(execution.device),
        execution.precision,
        storage=HOST if execution.sharded or execution.offload != "none" else None,
        text_device=text_device,
        vae_batch_size=execution.vae_batch_size,
        tiled=execution.vae_tiling == "on",
        shards=execution.processes if execution.sharded else 1,
    )
