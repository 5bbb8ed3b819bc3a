"""Wan's text encoder, umT5-XXL: its sizes, weights and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest_files, load_stored
from pavdm_cli.hub.weight_memory import check_room
from pavdm_cli.models import t5
from pavdm_cli.models.prompt_cache import PromptCache
from pavdm_cli.models.wan.checkpoint import UNUSED_TEXT, text_config, text_tensors, tokenizer_file
from pavdm_cli.models.wan.config import TEXT_LENGTH
from pavdm_cli.models.wan.prompt import clean
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs
from pavdm_cli.runtime.printable import pluralize

XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
}
PARAMETERS = 5_680_910_336


def open_text_encoder(
    folder: Path, device: torch.device, dtype: torch.dtype, cache: Path | None = None
) -> t5.T5TextEncoder:
    """The encoder in a folder of all parts; cache: folder of encoded prompts, if any."""

    def estimate() -> dict[str, int]:
        config = text_config(folder, text_tensors(folder).shapes())
        return {"weights": weight_bytes(folder, dtype), "activations": activation_bytes(config, dtype)}

    prompts = PromptCache(
        lambda text: load_encoder(folder, device, dtype)(text),
        lambda: f"{text_digest(folder)} {dtype} {TEXT_LENGTH}",
        cache,
    )
    return t5.T5TextEncoder(clean, prompts, estimate)


def unloaded_text_encoder(dtype: torch.dtype) -> t5.UnloadedTextEncoder:
    """The published encoder before it is downloaded."""
    weights = dtype.itemsize * PARAMETERS
    return t5.UnloadedTextEncoder({"weights": weights, "activations": activation_bytes(XXL, dtype)})


def load_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """A function from a cleaned prompt to its token embeddings (L, width), which holds the weights.

    Raises: ModelError, DeviceError.
    """
    tensors, tokenizer = text_tensors(folder), load_tokenizer(folder)
    config = text_config(folder, tensors.shapes())
    if tokenizer.get_piece_size() > config["vocab_size"]:
        pieces, words = tokenizer.get_piece_size(), config["vocab_size"]
        raise ModelError(
            f"the tokenizer has {pieces} tokens, more than umT5's vocab_size {words}",
            "tokenizer and weights seem to come from different downloads",
        )
    check_room("umT5", weight_bytes(folder, dtype), device, "encode the prompt elsewhere: --text-device cpu")
    with suppress_logs():
        encoder = load_stored(lambda: build(config), tensors, device, lambda name: dtype, UNUSED_TEXT)
        encoder.tie_weights()  # the embedding is stored once and has two names
    return lambda text: t5.run_encoder(encoder, t5.token_ids(tokenizer, text, TEXT_LENGTH), device)


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes of the weights in this precision. Raises: ModelError."""
    shapes = text_tensors(folder).shapes()
    return dtype.itemsize * sum(torch.Size(shape).numel() for shape in shapes.values())


def build(config: Mapping[str, Any]) -> Any:
    """transformers' encoder in these sizes. Raises: ModelError."""
    library = import_library("transformers.models.umt5.modeling_umt5")
    try:
        sizes = library.UMT5Config(**config, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6)
        return library.UMT5EncoderModel(sizes)
    except Exception as error:  # the library has many for sizes that make no sense
        raise ModelError("the umT5 configuration is inconsistent", "it may belong to another model") from error


def activation_bytes(config: Mapping[str, Any], dtype: torch.dtype) -> int:
    """Peak activations of the longest prompt: three inner vectors per token, and the attention weights."""
    token = 3 * config["d_ff"] + 4 * config["d_model"] + 2 * config["num_heads"] * TEXT_LENGTH
    return int(TEXT_LENGTH * (dtype.itemsize * token + 4 * config["d_model"]))


def text_digest(folder: Path) -> str:
    """16 hexadecimal digits of everything that embeddings depend on: weights and tokenizer. Raises: ModelError."""
    weights = digest_files(sorted(set(text_tensors(folder).files.values())))
    return t5.combined_digest(weights, [tokenizer_file(folder)])


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder of all parts. Raises: ModelError."""
    return t5.load_tokenizer(tokenizer_file(folder), "`pavdm models pull`")


def truncation_note(folder: Path, prompt: str) -> list[str]:
    """A line on a prompt that is too long; empty if all is encoded, or if the tokenizer cannot be read."""
    try:
        ids = load_tokenizer(folder).encode(clean(prompt))
    except ModelError:
        return []
    if len(ids) < TEXT_LENGTH:
        return []
    lost_tokens = pluralize(len(ids) - TEXT_LENGTH + 1, "token")
    return [
        f"the prompt has {len(ids) + 1} tokens and the model reads {TEXT_LENGTH}: the last {lost_tokens} are left out"
    ]
