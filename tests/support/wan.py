"""The tiny Wan models whose outputs were recorded from the original code; see `tests/golden/wan/README.md`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.models.wan.config import WanConfig
from pavdm_cli.models.wan.transformer import WanTransformer

GOLDEN = Path(__file__).parents[1] / "golden" / "wan"
TINY = WanConfig(dim=40, heads=2, layers=2, ffn_dim=72, text_dim=32, freq_dim=32, fps_embedding=True)


@cache
def golden(name: str) -> dict[str, Tensor]:
    """The tensors of a recording."""
    return load_file(GOLDEN / f"{name}.safetensors")


@cache
def tiny_transformer(fps_embedding: bool = True) -> WanTransformer:
    """The recorded transformer, with or without its fps embedding."""
    config = WanConfig(40, 2, 2, 72, text_dim=32, freq_dim=32, fps_embedding=fps_embedding)
    model = WanTransformer(config)
    weights = golden("dit_weights_original")
    model.load_state_dict({name: w for name, w in weights.items() if fps_embedding or not name.startswith("fps_")})
    return model.eval().requires_grad_(False)


def padded(rows: Tensor, length: int = 512) -> Tensor:  # (L, width) -> (length, width)
    """A prompt's rows, followed by zeros."""
    return torch.cat([rows, rows.new_zeros(length - len(rows), rows.shape[-1])])
