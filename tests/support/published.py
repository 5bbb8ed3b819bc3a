"""A tiny but complete Open-Sora checkpoint in the published layout: transformer, VAE, T5 and a real tokenizer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from torch import Tensor, nn

from pavdm_cli.models.opensora import text_encoder
from pavdm_cli.models.opensora.config import SIZES, XL2
from pavdm_cli.models.opensora.spatial_vae import SpatialConfig
from pavdm_cli.models.opensora.temporal_vae import TemporalConfig
from pavdm_cli.models.opensora.vae import OpenSoraVAE, VAEConfig, latent_statistics
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.stdit.layers import rotary_frequencies
from pavdm_cli.models.stdit.transformer import STDiT

STDIT = replace(XL2, hidden=64, depth=2, heads=4, text_width=32)
VAE = VAEConfig(SpatialConfig((32, 32, 32, 32), layers=1), TemporalConfig(filters=32, blocks=1))
T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
T5 |= {"feed_forward_proj": "gated-gelu", "architectures": ["T5EncoderModel"], "tie_word_embeddings": False}
RUNTIME = {"model_type": "STDiT3", "enable_flash_attn": True, "only_train_temporal": False, "torch_dtype": "float32"}
SENTENCES = (
    "a red balloon drifts over green hills at sunset",
    "a small boat on calm water, the camera pans left",
    "people walk through a busy street in the rain. aesthetic score: 6.5.",
)


def write(folder: Path, shards: int = 1) -> Path:
    """The three parts as folders, each as its repository is laid out."""
    transformer, vae, encoder = parts()
    part(folder / "transformer", transformer, published(), shards)
    part(folder / "vae", vae, {"model_type": "VideoAutoencoderPipeline"})
    part(folder / "text_encoder", encoder, T5, shards)
    (folder / "text_encoder" / "spiece.model").write_bytes(tokenizer())
    return folder


@cache
def parts() -> tuple[dict[str, Tensor], ...]:
    """Transformer, VAE and text encoder, the same for every test."""
    transformer = weights(lambda: STDiT(STDIT), {"rope.freqs": rotary_frequencies(STDIT.head_dim)})
    encoder = weights(lambda: text_encoder.build(T5), {})
    del encoder["encoder.embed_tokens.weight"]  # `shared` once more
    surplus = {"lm_head.weight": torch.zeros(96, 32), "decoder.final_layer_norm.weight": torch.zeros(32)}
    return transformer, weights(lambda: OpenSoraVAE(VAE), latent_statistics()), encoder | surplus


def weights(build: Callable[[], nn.Module], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every weight random."""
    return init_random(build, torch.device("cpu"), torch.float32, tensors).state_dict()


def published() -> dict[str, object]:
    """The transformer's configuration in its published names, with what it was run with."""
    sizes = {name: getattr(STDIT, ours) for ours, name in SIZES.items()}
    return sizes | RUNTIME | {"patch_size": [1, 2, 2], "pred_sigma": True}


def part(folder: Path, tensors: dict[str, Tensor], config: dict[str, object], shards: int = 1) -> None:
    """One part: configuration and weights, in one file or several with an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    where = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(where.values()):
        save_file({name: tensors[name] for name, at in where.items() if at == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


@cache
def tokenizer() -> bytes:
    """Trained on the spot, with T5's own three special tokens."""
    model = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=model, vocab_size=90, minloglevel=9,
        hard_vocab_limit=False, **ids,
    )  # fmt: skip
    return model.getvalue()
