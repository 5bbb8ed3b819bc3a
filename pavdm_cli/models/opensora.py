"""Open-Sora v1.2: the sizes of its transformer, what it reads, and in which precision it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.models.captions import clean
from pavdm_cli.models.stdit import STDiTConfig

XL2 = STDiTConfig(hidden=1152, depth=28, heads=16, in_channels=4, out_channels=8, text_width=4096, text_length=300)


def precision(device: torch.device) -> torch.dtype:
    """bfloat16 on a CUDA GPU, as the weights are published to be run; else float32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


SIZES = {
    "hidden": "hidden_size",
    "depth": "depth",
    "heads": "num_heads",
    "in_channels": "in_channels",
    "text_width": "caption_channels",
    "text_length": "model_max_length",
    "mlp_ratio": "mlp_ratio",
    "input_sq_size": "input_sq_size",
}  # ours, and the published name


def config_of(published: dict[str, Any]) -> STDiTConfig:
    """The sizes a published configuration gives; what it leaves out is as in XL/2, how it was run is not looked at.

    Raises: ModelError.
    """
    other = {name: published.get(name, wanted) for name, wanted in (("qk_norm", True), ("skip_y_embedder", False))}
    if other != {"qk_norm": True, "skip_y_embedder": False} or published.get("model_type", "STDiT3") != "STDiT3":
        raise ModelError(f"the configuration is of another network: {published.get('model_type')}, {other}")
    given = {ours: published[name] for ours, name in SIZES.items() if name in published}
    if not all(isinstance(value, int | float) and value > 0 for value in given.values()):
        raise ModelError(f"the configuration makes no sense: {given}", "is it cut short, or another model's?")
    try:
        config = replace(XL2, **given, patch=tuple(published.get("patch_size", XL2.patch)))
        twice = bool(published.get("pred_sigma", True))
        return replace(config, out_channels=config.in_channels * (2 if twice else 1))
    except (AssertionError, TypeError, ValueError, ArithmeticError, IndexError) as error:
        raise ModelError("the configuration makes no sense", "is it cut short, or another model's?") from error


class RandomText:
    """Stands for a text encoder where the weights are made up: a random vector for every word and one for the end."""

    def __init__(self, width: int) -> None:
        self.width = width

    def embed(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Vectors (B, L, width) that depend on nothing but the number of words, and which belong to the prompt."""
        counts = torch.tensor([len(prompt.split()) + 1 for prompt in prompts])
        longest = int(counts.max())
        vectors = torch.randn(longest, self.width, generator=torch.Generator().manual_seed(0))
        return vectors.expand(len(prompts), -1, -1), torch.arange(longest) < counts[:, None]


def check_prompt(prompt: str) -> list[str]:
    """Refuse a prompt that says nothing. Raises: UsageError."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')
    if not clean(prompt):
        raise UsageError(
            f"nothing is left of {prompt!r} once links, file names and symbols are out", "use English words"
        )
    return []
