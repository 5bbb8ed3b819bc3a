"""Train low-rank adapters (LoRA) of a frozen transformer, and write them as a file for `--lora`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.models.adapter import LoadedModel
from pavdm_cli.models.distributed import full_tensors

LORA_FILE = "lora.safetensors"
PREFIX = "diffusion_model."  # of the keys; `models.lora` ignores it


class LowRankUpdate(nn.Module):
    """Parametrization of a frozen weight (out, in): adds `up @ down`, which is zero before training."""

    def __init__(self, weight: Tensor, rank: int, seed: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        generator = torch.Generator().manual_seed(seed)  # the same values in every process
        down = torch.empty(rank, columns).uniform_(-1, 1, generator=generator) * columns**-0.5
        self.down = nn.Parameter(down.to(weight.device, torch.float32))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype)


def add_adapters(model: LoadedModel, rank: int) -> None:
    """Freeze the transformer, and add trainable adapters to the linear layers of its blocks."""
    model.transformer.requires_grad_(False)
    for seed, layer in enumerate(_linear_layers(model)):
        register_parametrization(layer, "weight", LowRankUpdate(layer.weight, rank, seed), unsafe=True)


def adapter_bytes(model: LoadedModel, rank: int) -> int:
    """Bytes of the adapters in float32."""
    return sum(4 * rank * sum(layer.weight.shape) for layer in _linear_layers(model))


def export_adapters(transformer: nn.Module, folder: Path, metadata: Mapping[str, object], main: bool) -> Path:
    """Write the adapters in float32 to `LORA_FILE`. All processes call it, and the main one writes."""
    factors = full_tensors(_adapters(transformer), keep=main)
    if main:
        with atomic_write(folder / LORA_FILE) as temporary:
            tensors = {name: value.detach().cpu().contiguous() for name, value in factors.items()}
            save_file(tensors, temporary, {"format": "pt", **{key: str(value) for key, value in metadata.items()}})
    return folder / LORA_FILE


def _adapters(transformer: nn.Module) -> dict[str, Tensor]:
    """The factors of every adapter by peft's names."""
    factors: dict[str, Tensor] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, LowRankUpdate):
            layer = PREFIX + name.removesuffix(".parametrizations.weight.0")
            factors |= {f"{layer}.lora_A.weight": module.down, f"{layer}.lora_B.weight": module.up}
    return factors


def _linear_layers(model: LoadedModel) -> Iterator[nn.Linear]:
    for block in model.blocks:
        yield from (module for module in list(block.modules()) if isinstance(module, nn.Linear))
