"""Models as tests need them: their specs by name, and a loaded one in a line."""

from __future__ import annotations

from dataclasses import replace

import torch

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import Init
from pavdm_cli.models.execution import VAE_BATCH_SIZE, ExecutionConfig
from pavdm_cli.models.meta_model import meta_runner
from pavdm_cli.models.open_runner import open_runner, placement_for
from pavdm_cli.models.runner import ModelRunner, with_offload
from pavdm_cli.models.spec import ModelSpec

MODELS = {spec.name: spec for spec in registry.specs()}
POCKET, OPENSORA = MODELS["pocket"], MODELS["opensora-v1.2"]

EXECUTION = ExecutionConfig(context_cache="reuse")  # where the clean latents see only clean ones, as in pocket


def meta_of(config: GenerationConfig, device: torch.device | None = None) -> ModelRunner:
    """The model without contents, as it will be on a device."""
    device = device or torch.device("cpu")
    precision = config.spec.precisions_on(device.type)[0]
    execution = replace(config.execution, device=device.type, precision=precision, offload="none")
    return meta_runner(config.video_model, config.spec, placement_for(execution))


def find(name: str) -> ModelSpec:
    """The spec of a model's name, or of a folder."""
    return registry.find(name).spec


def load(
    spec: ModelSpec,
    device: torch.device | str = "cpu",
    *,
    execution: ExecutionConfig | None = None,
    precision: str = "",
    prompt: str = "",
    init: Init = "weights",
) -> ModelRunner:
    """The model of a spec on a device, offloaded where `execution` says so."""
    kind = torch.device(device).type
    precision = precision or spec.precisions_on(kind)[0]
    execution = execution or ExecutionConfig()
    vae_batch_size = execution.vae_batch_size or VAE_BATCH_SIZE
    execution = replace(execution, device=kind, precision=precision, vae_batch_size=vae_batch_size)
    prompts = [prompt] if prompt else []
    runner = open_runner(registry.find(spec.name), spec, placement_for(execution), prompts=prompts, init=init)
    return with_offload(runner, execution.offload)
