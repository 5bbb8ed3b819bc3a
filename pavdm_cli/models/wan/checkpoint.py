"""Reads a folder of weights in the original layout, with all parts in one folder, or in that of diffusers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import Shapes, StoredTensors, locate_tensors
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.models.wan.config import MEAN_21, MEAN_22, PATCH, STD_21, STD_22, VAEConfig, WanConfig
from pavdm_cli.models.wan.names import original_name, original_vae_names, transformers_name
from pavdm_cli.runtime.untrusted import list_of, number

HINT = "the file may be truncated, or belong to another model"
# Files of the original layout that belong to another part than the transformer.
OTHER_PARTS = {"vae": re.compile("vae", re.IGNORECASE), "text_encoder": re.compile("t5", re.IGNORECASE)}
TOKENIZERS = ("tokenizer", "google/umt5-xxl", "text_encoder")
UNUSED_TEXT = ("decoder.", "lm_head.", "encoder.embed_tokens.")  # the last duplicates `shared`
SHARED, EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"
STATISTICS = {len(MEAN_21): (MEAN_21, STD_21), len(MEAN_22): (MEAN_22, STD_22)}  # by channels of a latent
LAYER = re.compile(r"^(?:encoder\.)?blocks?\.(\d+)\.")


def is_original(folder: Path) -> bool:
    """Whether a folder has the original layout."""
    return not (folder / "transformer").is_dir()


def transformer_tensors(folder: Path) -> StoredTensors:
    """Tensors of the transformer, by their original names. Raises: ModelError."""
    return _locate_renamed(folder, "transformer", lambda names: {name: original_name(name) for name in names})


def vae_tensors(folder: Path) -> StoredTensors:
    """Tensors of the VAE, by their original names. Raises: ModelError."""
    return _locate_renamed(folder, "vae", original_vae_names)


def text_tensors(folder: Path) -> StoredTensors:
    """Tensors of the text encoder, by their names in transformers. Raises: ModelError."""

    def rename(names: Iterable[str]) -> dict[str, str]:
        new = {name: transformers_name(name) for name in names}
        if SHARED not in new.values() and EMBEDDING in new:
            new[EMBEDDING] = SHARED
        return {name: new_name for name, new_name in new.items() if not new_name.startswith(UNUSED_TEXT)}

    return _locate_renamed(folder, "text_encoder", rename)


def tokenizer_file(folder: Path) -> Path:
    """The path of the tokenizer, which need not exist."""
    paths = [folder / name / "spiece.model" for name in TOKENIZERS]
    return next((path for path in paths if path.exists()), paths[1 if is_original(folder) else 0])


def _locate_renamed(folder: Path, part: str, rename: Callable[[Iterable[str]], dict[str, str]]) -> StoredTensors:
    part_folder = folder if is_original(folder) else folder / part
    files = locate_tensors(
        part_folder, belongs=(lambda name: _part_of(name) == part) if part_folder == folder else lambda name: True
    )
    names = rename(files)
    if len(set(names.values())) < len(names):
        raise ModelError(f"{part_folder} holds a tensor under two names", "keep the files of one layout")
    return StoredTensors(
        part_folder, {new: files[name] for name, new in names.items()}, {new: name for name, new in names.items()}
    )


def _part_of(file: str) -> str:
    return next((part for part, pattern in OTHER_PARTS.items() if pattern.search(file)), "transformer")


def transformer_config(folder: Path, shapes: Shapes) -> WanConfig:
    """The transformer's sizes, from its tensors; only the number of heads is read from the configuration.

    Raises: ModelError.
    """
    path = (folder if is_original(folder) else folder / "transformer") / "config.json"
    config = read_json(path)
    dim, channels = _size(folder, shapes, "patch_embedding.weight")[:2]
    heads = config.get("num_heads", config.get("num_attention_heads"))
    if type(heads) is not int or heads < 1 or dim % (2 * heads):
        raise ModelError(f"{path} is invalid: {heads} heads of {dim} channels", HINT)
    return WanConfig(
        dim=dim,
        heads=heads,
        layers=_count_layers(shapes),
        ffn_dim=_size(folder, shapes, "blocks.0.ffn.0.weight")[0],
        in_channels=channels,
        out_channels=_size(folder, shapes, "head.head.weight")[0] // (PATCH[1] * PATCH[2]),
        text_dim=_size(folder, shapes, "text_embedding.0.weight")[1],
        freq_dim=_size(folder, shapes, "time_embedding.0.weight")[1],
        fps_embedding="fps_embedding.weight" in shapes,
    )


def vae_config(folder: Path, shapes: Shapes) -> VAEConfig:
    """The VAE's sizes, from its tensors; latent statistics from its configuration, else the published ones.

    Raises: ModelError.
    """
    width, pixels = _size(folder, shapes, "encoder.conv1.weight")[:2]
    channels = _size(folder, shapes, "conv2.weight")[0]
    mean, std = _statistics(folder, channels)
    return VAEConfig(width, _size(folder, shapes, "decoder.head.0.gamma")[0], mean, std, shortcuts=pixels == 12)


def _statistics(folder: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    path = folder / "vae" / "config.json"
    config = read_json(path) if path.exists() else {}
    if not {"latents_mean", "latents_std"} <= config.keys():
        if channels in STATISTICS:
            return STATISTICS[channels]
        raise ModelError(f"no statistics of the VAE's {channels} latent channels in {folder}", HINT)
    mean, std = config["latents_mean"], config["latents_std"]
    fits = list_of(number(-1e3, 1e3), channels, channels).fits(mean)
    if not fits or not list_of(number(1e-3, 1e3), channels, channels).fits(std):
        raise ModelError(f"{path} is invalid: it needs latents_mean and latents_std of {channels} channels", HINT)
    return tuple(mean), tuple(std)


def text_config(folder: Path, shapes: Shapes) -> dict[str, Any]:
    """The text encoder's sizes, from its tensors, by their names in transformers. Raises: ModelError."""
    layer = "encoder.block.0.layer."
    vocabulary, width = _size(folder, shapes, SHARED)
    buckets, heads = _size(folder, shapes, f"{layer}0.SelfAttention.relative_attention_bias.weight")
    inner = _size(folder, shapes, f"{layer}0.SelfAttention.q.weight")[0]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // max(1, heads),
        "d_ff": _size(folder, shapes, f"{layer}1.DenseReluDense.wi_0.weight")[0],
        "num_layers": _count_layers(shapes),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _count_layers(shapes: Mapping[str, object]) -> int:
    return len({match[1] for name in shapes if (match := LAYER.match(name))})


def _size(folder: Path, shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of a tensor of the expected rank. Raises: ModelError."""
    rank = {"decoder.head.0.gamma": 4, "patch_embedding.weight": 5, "encoder.conv1.weight": 5, "conv2.weight": 5}
    shape = shapes.get(name, ())
    if len(shape) != rank.get(name, 2) or 0 in shape:
        raise ModelError(f"{folder} does not fit: {name} is {list(shape) if shape else 'missing'}", HINT)
    return shape
