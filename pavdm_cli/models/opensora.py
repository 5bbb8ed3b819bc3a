"""Open-Sora v1.2: the sizes of its transformer, what it reads, and in which precision it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.stdit import STDiTConfig

XL2 = STDiTConfig(hidden=1152, depth=28, heads=16, in_channels=4, out_channels=8, text_width=4096, text_length=300)


def precision(device: torch.device) -> torch.dtype:
    """bfloat16 on a CUDA GPU, as the weights are published to be run; else float32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


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
    return []
