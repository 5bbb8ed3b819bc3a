"""Pocket's denoiser: its text encoder and its transformer, which are trained and stored together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pavdm_cli.models.pocket.frame_format import LATENT_CHANNELS
from pavdm_cli.models.pocket.text_encoder import PocketTextModel, TextConfig, batch_ids
from pavdm_cli.models.stdit.transformer import Conditioning, STDiT, STDiTConfig
from pavdm_cli.pocket_world.vocabulary import LENGTH, PAD

SMALL = STDiTConfig(
    hidden=192,
    depth=3,
    heads=6,
    in_channels=LATENT_CHANNELS,
    out_channels=LATENT_CHANNELS,
    text_width=128,
    text_length=LENGTH,
    mlp_ratio=4.0,
)


@dataclass(frozen=True, slots=True)
class PocketConfig:
    """Shapes of the two parts."""

    text: TextConfig = field(default_factory=TextConfig)
    stdit: STDiTConfig = SMALL


class Pocket(nn.Module):
    """Both networks; their weights are in one file."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.config = config
        self.text = PocketTextModel(config.text, config.stdit.text_length)
        self.stdit = STDiT(config.stdit)

    def encode_prompts(self, prompts: list[str], dropped: Tensor | None = None) -> Conditioning:
        """Keys and values of prompts; dropped (B,): replace by the null embedding, with the prompt's mask."""
        y, mask = self.embed(prompts)
        if dropped is not None:
            null = self.stdit.y_embedder.y_embedding[: y.shape[1]].to(y)
            y = torch.where(dropped.to(y.device)[:, None, None], null, y)
        return self.stdit.encode_text(y, mask)

    def embed(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Token vectors (B, L, width) and which of them are words (B, L)."""
        ids = batch_ids(prompts, self.stdit.y_embedder.y_embedding.device)
        with nullcontext() if torch.is_grad_enabled() else single_thread():
            vectors: Tensor = self.text(ids)
        return vectors, ids != PAD


@contextmanager
def single_thread() -> Iterator[None]:
    """Inside the block, torch's matmuls of a few rows round the same for any number of threads outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
