"""Which parts of a model and its work are in memory at which stage of a video."""

from __future__ import annotations

import torch

from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.meta_model import SamplingMemory, VAEMemory, module_bytes
from pavdm_cli.models.offload import offloaded_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.sharding import sharded_bytes

STAGES = ("encode text", "encode frames", "denoise", "decode")
# Bytes while the prompt is encoded, conditioning frames are encoded, latents are denoised, and latents are decoded.
Stages = tuple[int, int, int, int]
LIBRARIES = "libraries (estimate)"  # on a GPU with its context


def device_parts(
    model: ModelRunner,
    sampling: SamplingMemory,
    vae_memory: VAEMemory,
    execution: ExecutionConfig,
    device: torch.device,
) -> dict[str, Stages]:
    """Memory on the model's device, by part."""
    vae = module_bytes(model.vae)
    loads_vae_on_demand = execution.offload != "none"  # the VAE is onloaded for its stage
    transformer, gathered_weights = transformer_bytes(model, execution)
    transformer_during_vae = 0 if execution.offload == "model" else transformer  # while the VAE works
    during_sampling, overlaps = bool(vae_memory.reencoding), execution.overlap_decode == "on"
    return {
        "transformer": (0, transformer_during_vae, transformer, transformer_during_vae),
        "gathered weights": (0, 0, gathered_weights, gathered_weights * overlaps),
        "text KV and modulation": _from_first_step(sampling.constants, during_sampling),
        "context KV cache": _from_first_step(sampling.kv_cache, during_sampling),
        "activations of a step": (0, 0, sampling.step, sampling.step * overlaps),
        "CUDA graphs": _from_first_step(sampling.graphs, during_sampling),
        "VAE": (0, vae, 0 if loads_vae_on_demand else vae, vae),
        "activations of the VAE": (0, max(vae_memory.encoding, vae_memory.reencoding), 0, vae_memory.decoding),
        # while decoding, a step or a re-encoding runs, whichever needs more
        "re-encoding": (0, 0, 0, max(0, vae_memory.reencoding - sampling.step) * overlaps),
    }


def transformer_bytes(model: ModelRunner, execution: ExecutionConfig) -> tuple[int, int]:
    """Bytes of the transformer's weights that stay on a device, and of those that are there only in a step."""
    if execution.sharded:
        return sharded_bytes(model.model, execution.processes)
    streamed_bytes = offloaded_bytes(model.model) if execution.offload == "sequential" else 0
    return module_bytes(model.transformer) - streamed_bytes, 0


def worker_bytes(parts: dict[str, Stages]) -> int:
    """Memory of another process that runs the transformer for this one; parts: of the model's device."""
    part_names = {
        "transformer",
        "gathered weights",
        "text KV and modulation",
        "context KV cache",
        "activations of a step",
        LIBRARIES,
    }
    return sum(parts[name][STAGES.index("denoise")] for name in part_names if name in parts)


def host_parts(model: ModelRunner, execution: ExecutionConfig) -> dict[str, Stages]:
    """Offloaded weights on the host."""
    if execution.offload == "none":
        return {}
    sizes = (("transformer", module_bytes(model.transformer)), ("VAE", module_bytes(model.vae)))
    return {f"{name} (offloaded)": (0, size, size, size) for name, size in sizes}


def _from_first_step(size: int, during_sampling: bool) -> Stages:
    """Memory held from the first step on; in the encode stage only if re-encoding happens between steps."""
    return 0, size * during_sampling, size, size
