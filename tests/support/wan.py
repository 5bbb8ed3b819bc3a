"""The tiny Wan models whose outputs were recorded from the original code; see `tests/golden/wan/README.md`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pavdm_cli.models.wan.config import WanConfig
from pavdm_cli.models.wan.names import original_vae_names
from pavdm_cli.models.wan.transformer import WanTransformer
from pavdm_cli.models.wan.vae import VAEConfig, WanVAE

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


@cache
def index() -> dict[str, Any]:
    """What was recorded, by file."""
    found: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
    return found


@cache
def tiny_vae(version: str) -> WanVAE:
    """The recorded VAE of Wan 2.1 or 2.2."""
    if version == "2.1":
        vae, weights = WanVAE(VAEConfig(4, 4)), golden("vae_weights_original")
    else:
        config, stored = index()["vae22_weights_diffusers"]["config"], golden("vae22_weights_diffusers")
        statistics = (tuple(config["latents_mean"]), tuple(config["latents_std"]))
        vae, names = WanVAE(VAEConfig(4, 6, *statistics, shortcuts=True)), original_vae_names(stored)
        weights = {names[name]: weight for name, weight in stored.items()}
    vae.load_state_dict(weights)
    return vae.eval().requires_grad_(False)
