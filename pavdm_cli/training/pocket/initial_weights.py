"""Weights that a denoiser starts from, grown to this version's words, prompt length and latent channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import PocketVAEConfig
from pavdm_cli.pocket_world.vocabulary import LENGTH, PAD, VOCABULARY

WORDS = "text.words.weight"
POSITIONS = ("text.places", "stdit.y_embedder.y_embedding")
INPUT = "stdit.x_embedder.proj.weight"
OUTPUTS = ("stdit.final_layer.linear.weight", "stdit.final_layer.linear.bias")


def new_denoiser(vae: PocketVAEConfig) -> Pocket:
    """A denoiser of the published sizes for the latents of a VAE, initialized at random."""
    model = Pocket(_grown_config(PocketConfig(), vae))
    model.stdit.initialize_weights()
    return model


def load_grown(path: Path, vae: PocketVAEConfig) -> Pocket:
    """The denoiser of a file; what it lacks for this version and this VAE is initialized at random.

    Old prompts and old latent channels give the same output as before. Raises: ModelError.
    """
    stored, words = checkpoint.load_denoiser_with_words(path)
    if stored.config.stdit.in_channels > vae.latent_channels:
        channels = f"{stored.config.stdit.in_channels} latent channels, but the VAE has {vae.latent_channels}"
        raise ModelError(f"{path} needs {channels}", "pass the VAE that it was trained with as --vae")
    model = Pocket(_grown_config(stored.config, vae))
    model.stdit.initialize_weights()
    random, weights = model.state_dict(), stored.state_dict()
    weights[WORDS] = _match_words(weights[WORDS], random[WORDS], words)
    weights |= {name: _grow_positions(weights[name], random[name]) for name in POSITIONS}
    if stored.config.stdit.in_channels < vae.latent_channels:
        weights |= _grow_channels(weights, model.config, vae)
    model.load_state_dict(weights)
    return model


def _grown_config(config: PocketConfig, vae: PocketVAEConfig) -> PocketConfig:
    channels = vae.latent_channels
    stdit = replace(config.stdit, in_channels=channels, out_channels=channels, text_length=LENGTH)
    return PocketConfig(replace(config.text, words=len(VOCABULARY) + 1), stdit)


def _match_words(stored: Tensor, random: Tensor, words: list[str]) -> Tensor:  # (words + 1, D) each
    """Every known word has its stored row, wherever it was; new words have random rows of the same scale."""
    rows = random * (stored.std() / random.std())
    rows[PAD] = stored[PAD]
    for row, word in enumerate(words, start=1):
        if word in VOCABULARY:
            rows[VOCABULARY[word]] = stored[row]
    return rows


def _grow_positions(stored: Tensor, random: Tensor) -> Tensor:  # (positions, D) each
    """The stored positions, then random ones of the same scale; positions past the longest prompt are left out."""
    count = min(len(stored), len(random))
    return torch.cat([stored[:count], random[count:] * (stored.std() / random.std())])


def _grow_channels(weights: Mapping[str, Tensor], config: PocketConfig, vae: PocketVAEConfig) -> dict[str, Tensor]:
    """The first and last layer, for more channels in every frame's code: added ones are ignored, and predicted as 0.

    Channels of a latent are ordered by frame, then by channel of the code.
    """
    frames, patch = vae.frames_per_latent, config.stdit.patch[1] * config.stdit.patch[2]
    columns = rearrange(weights[INPUT], "d (f c) ... -> d f c ...", f=frames)
    grown = {INPUT: rearrange(_pad_axis(columns, 2, vae.channels), "d f c ... -> d (f c) ...")}
    for name in OUTPUTS:
        rows = rearrange(weights[name], "(p f c) ... -> p f c ...", p=patch, f=frames)
        grown[name] = rearrange(_pad_axis(rows, 2, vae.channels), "p f c ... -> (p f c) ...")
    return grown


def _pad_axis(value: Tensor, axis: int, size: int) -> Tensor:
    """Append zeros along an axis."""
    shape = list(value.shape)
    shape[axis] = size - shape[axis]
    return torch.cat([value, value.new_zeros(shape)], dim=axis)
