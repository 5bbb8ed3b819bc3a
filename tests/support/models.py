"""Models as tests need them: their specs by name, and a loaded one in a line."""

from __future__ import annotations

from dataclasses import replace

import torch

from pavdm_cli.generation.pipeline import Job
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import Init
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.meta_model import meta_runner
from pavdm_cli.models.runner import ModelRunner, open_runner, place, with_offload
from pavdm_cli.models.spec import ModelSpec

MODELS = {spec.name: spec for spec in registry.specs()}
POCKET, OPENSORA = MODELS["pocket"], MODELS["opensora-v1.2"]


def meta_of(job: Job, device: torch.device | None = None) -> ModelRunner:
    """The job's model without contents, as it will be on a device."""
    device = device or torch.device("cpu")
    engine = replace(job.sampling.engine, offload="none")
    precision = job.spec.precisions_on(device.type)[0]
    return meta_runner(job.video_model, job.spec, place(device, engine, precision))


def find(name: str) -> ModelSpec:
    """The spec of a model's name, or of a folder."""
    return registry.find(name).spec


def load(
    spec: ModelSpec,
    device: torch.device | str = "cpu",
    *,
    engine: Engine | None = None,
    precision: str = "",
    prompt: str = "",
    init: Init = "weights",
) -> ModelRunner:
    """The model of a spec on a device, offloaded where the engine says so."""
    engine, device = engine or Engine(), torch.device(device)
    placement = place(device, engine, precision or spec.precisions_on(device.type)[0])
    prompts = [prompt] if prompt else []
    return with_offload(
        open_runner(registry.find(spec.name), spec, placement, prompts=prompts, init=init), engine.offload
    )
