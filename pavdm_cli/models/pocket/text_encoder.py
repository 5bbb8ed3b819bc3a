"""Pocket's text encoder: word embeddings through a small transformer encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pavdm_cli.pocket_world.vocabulary import LENGTH, PAD, VOCABULARY, tokens


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Shape of the text encoder."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    words: int = len(VOCABULARY) + 1


class PocketTextModel(nn.Module):
    """The network, trained together with the denoiser."""

    def __init__(self, config: TextConfig, length: int = LENGTH) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.words, config.width)
        self.places = nn.Parameter(nn.init.normal_(torch.empty(length, config.width), std=0.02))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: Tensor) -> Tensor:  # (B, L) -> (B, L, width)
        """Token vectors; padding is not attended to."""
        hidden = self.words(ids) + self.places[: ids.shape[1]]
        out: Tensor = self.norm(self.layers(hidden, src_key_padding_mask=ids == PAD))
        return out


def batch_ids(prompts: list[str], device: torch.device | str = "cpu") -> Tensor:  # (B, L)
    """Prompts as rows of word numbers, padded to the longest."""
    rows = [tokens(prompt) for prompt in prompts]
    longest = max(1, *map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=device)
