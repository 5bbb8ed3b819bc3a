"""The tiny Wan models whose outputs were recorded from the original code; see `tests/golden/wan/README.md`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pavdm_cli.models.wan.config import VAEConfig, WanConfig
from pavdm_cli.models.wan.names import original_vae_names
from pavdm_cli.models.wan.transformer import WanTransformer
from pavdm_cli.models.wan.vae import WanVAE
from support import published

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
    contents: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
    return contents


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


def write_checkpoint(folder: Path, layout: str = "diffusers") -> Path:
    """The tiny SkyReels model in the layout of diffusers or in the original one, with a real tokenizer."""
    return (write_diffusers if layout == "diffusers" else write_original)(folder)


def write_diffusers(folder: Path) -> Path:
    """Four folders, the transformer in two shards."""
    layouts = json.loads((GOLDEN / "layouts.json").read_text())
    sizes = index()["dit_weights_diffusers"]["config"]
    vae = {"base_dim": 4, "decoder_base_dim": None}
    configs = {
        "transformer": layouts["diffusers transformer/config.json SkyReels-V2-DF-1.3B"] | sizes,
        "vae": layouts["diffusers vae/config.json Wan2.1"] | vae,
        "text_encoder": {"architectures": ["UMT5EncoderModel"], "model_type": "umt5"},
    }
    names = index()["vae_names"]["map"]
    weights = {
        "transformer": golden("dit_weights_diffusers"),
        "vae": {names[name]: weight for name, weight in golden("vae_weights_original").items()},
        "text_encoder": {index()["umt5"]["names"][name]: weight for name, weight in umt5_weights().items()},
    }
    for part, config in configs.items():
        published.part(folder / part, dict(weights[part]), config, shards=2 if part == "transformer" else 1)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(published.tokenizer())
    pipeline = next(value for name, value in layouts.items() if name.startswith("diffusers model_index.json"))
    (folder / "model_index.json").write_text(json.dumps(pipeline))
    return folder


def write_original(folder: Path) -> Path:
    """All parts in one folder, under the names that conversion gives the pickled ones."""
    layouts = json.loads((GOLDEN / "layouts.json").read_text())
    config = dict(layouts["original config.json as the SkyReels class writes it (tiny, derived)"])
    config |= {"dim": 40, "num_heads": 2, "num_layers": 2, "ffn_dim": 72, "freq_dim": 32}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(golden("dit_weights_original")), folder / "model.safetensors")
    save_file(dict(golden("vae_weights_original")), folder / "Wan2.1_VAE.safetensors")
    save_file(umt5_weights(), folder / "models_t5_umt5-xxl-enc-bf16.safetensors")
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "google" / "umt5-xxl" / "spiece.model").write_bytes(published.tokenizer())
    return folder


def umt5_weights() -> dict[str, Tensor]:
    """The recorded text encoder's, by their original names."""
    recorded = golden("umt5")
    return {name.removeprefix("w."): weight for name, weight in recorded.items() if name.startswith("w.")}
