"""Low-rank adapters (LoRA) from safetensors files, merged into the transformer's weights when it is loaded.

Supported are the key styles of peft and diffusers (`lora_A`, `lora_B`), of kohya and musubi (`lora_unet_` with
underscores, `lora_down`, `lora_up`, `alpha`), and full weight differences (`diff`, `diff_b`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import open_checkpoint
from pavdm_cli.models.lora_file import LoraFile

PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "model.")
UNDERSCORES = "lora_unet_"
ROLES = {
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora_down.weight": "down",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
}
KEY = re.compile(rf"(?P<module>.+)\.(?P<role>{'|'.join(map(re.escape, ROLES))})")


@dataclass(slots=True)
class ModuleTensors:
    """The tensors of a file for one module."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # by role

    def weight(self) -> Tensor | None:  # (out, in * kernel)
        """The difference of the weight with alpha / rank applied, but not the user's scale."""
        if "diff" in self.tensors:
            return self.tensors["diff"].float().flatten(1) if self.tensors["diff"].ndim > 1 else self.tensors["diff"]
        if not {"down", "up"} <= self.tensors.keys():
            return None
        down, up = (self.tensors[role].float().flatten(1) for role in ("down", "up"))
        rank = len(down)
        return (self.alpha(rank) / rank) * (up @ down)

    def alpha(self, rank: int) -> float:
        """Numerator of the scaling factor alpha / rank; the rank if the file has none."""
        return float(self.tensors["alpha"]) if "alpha" in self.tensors else float(rank)


@torch.no_grad()
def merge_lora(network: nn.Module, adapters: Sequence[LoraFile], rename: Callable[[str], str]) -> None:
    """Add the adapters to the network's weights, in place; rename: parameter names of any layout to the network's.

    Raises: ModelError for a file that is not a LoRA of this network.
    """
    weights = dict(network.named_parameters())
    flat = {name.removesuffix(".weight").replace(".", "_"): name for name in weights if name.endswith(".weight")}
    for adapter in adapters:
        for module, parts in read_lora(adapter, flat, rename).items():
            _add(weights, module, parts, adapter)


def read_lora(adapter: LoraFile, flat: Mapping[str, str], rename: Callable[[str], str]) -> dict[str, ModuleTensors]:
    """The tensors of a file by module of the network; flat: weight names by module name with underscores.

    Raises: ModelError.
    """
    modules: dict[str, ModuleTensors] = {}
    with open_checkpoint(adapter.path) as file:
        for key in file.keys():  # noqa: SIM118
            match = KEY.fullmatch(key)
            if not match:
                raise _foreign(adapter, key)
            module = _module(match["module"], flat, rename)
            modules.setdefault(module, ModuleTensors()).tensors[ROLES[match["role"]]] = file.get_tensor(key)
    if not modules:
        raise ModelError(f"{adapter.path} holds no LoRA", HINT)
    return modules


HINT = "give a LoRA of this model, as safetensors"


def _module(name: str, flat: Mapping[str, str], rename: Callable[[str], str]) -> str:
    """The network's name of a module."""
    if name.startswith(UNDERSCORES):
        return flat.get(name.removeprefix(UNDERSCORES), name).removesuffix(".weight")
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return rename(f"{name}.weight").removesuffix(".weight")


def _add(weights: Mapping[str, nn.Parameter], module: str, parts: ModuleTensors, adapter: LoraFile) -> None:
    try:
        difference, bias = parts.weight(), parts.tensors.get("diff_b")
    except (RuntimeError, ValueError) as error:  # shapes that cannot be multiplied, or an alpha that is not a number
        raise _foreign(adapter, module) from error
    if difference is None and bias is None:
        raise _foreign(adapter, module)
    for name, value in ((f"{module}.weight", difference), (f"{module}.bias", bias)):
        if value is None:
            continue
        weight = weights.get(name)
        if weight is None or weight.numel() != value.numel() or len(weight) != len(value):
            raise _foreign(adapter, name)
        if not value.isfinite().all():
            raise ModelError(f"{adapter.path} holds values that are not finite: {name}", "its training diverged")
        change = adapter.scale * value.to(weight.device, torch.float32).view(weight.shape)
        weight.data = (weight.data.float() + change).to(weight.dtype)


def _foreign(adapter: LoraFile, key: str) -> ModelError:
    return ModelError(f"{adapter.path} does not fit this model: {key}", HINT)
