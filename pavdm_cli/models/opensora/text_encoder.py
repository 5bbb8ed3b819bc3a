"""Open-Sora's text encoder, T5 v1.1 XXL: its configuration, weights and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest, load_into
from pavdm_cli.hub.config_checks import HINT, check_number, check_whole, within
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.hub.weight_memory import check_room, weight_bytes
from pavdm_cli.hub.weights_dir import pull_command
from pavdm_cli.models import t5
from pavdm_cli.models.opensora.prompt import clean
from pavdm_cli.models.opensora.spec import SPEC
from pavdm_cli.models.prompt_cache import PromptCache
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs
from pavdm_cli.runtime.printable import pluralize

# Everything that is read from a configuration.
SIZES = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
    "feed_forward_proj",
)
XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
LIMITS = {
    **within(XXL),
    "vocab_size": (2, 1 << 20),
    "relative_attention_num_buckets": (4, 1 << 12),
    "relative_attention_max_distance": (1, 1 << 16),
}
MAX_TOKENS = 300  # including the end token
UNUSED = ("decoder.", "lm_head.", "encoder.embed_tokens.")  # of the published model; the last duplicates `shared`
TOKENIZER = "spiece.model"


def open_text_encoder(
    folder: Path, device: torch.device, dtype: torch.dtype, cache: Path | None = None
) -> t5.T5TextEncoder:
    """The encoder in a folder of weights, configuration and tokenizer; cache: folder of encoded prompts, if any."""

    def estimate() -> dict[str, int]:
        config = read_json(folder / "config.json")
        weights = weight_bytes(folder, dtype, UNUSED)
        return {"weights": weights, "activations": activation_bytes(config, dtype)}

    prompts = PromptCache(
        lambda text: load_encoder(folder, device, dtype)(text), lambda: f"{text_digest(folder)} {dtype}", cache
    )
    return t5.T5TextEncoder(clean, prompts, estimate)


def unloaded_text_encoder(dtype: torch.dtype) -> t5.UnloadedTextEncoder:
    """The published encoder before it is downloaded."""
    weights = dtype.itemsize * parameter_count({})
    return t5.UnloadedTextEncoder({"weights": weights, "activations": activation_bytes({}, dtype)})


def load_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """A function from a cleaned prompt to its token embeddings (L, width), which holds the weights.

    Raises: ModelError, DeviceError.
    """
    config = read_json(folder / "config.json")
    check_sizes(config)
    tokenizer = load_tokenizer(folder)
    pieces, words = tokenizer.get_piece_size(), config.get("vocab_size", XXL["vocab_size"])
    if pieces > words:
        message = f"the tokenizer {folder / TOKENIZER} has {pieces} tokens, more than T5's vocab_size {words}"
        raise ModelError(message, "tokenizer and weights seem to come from different downloads")
    check_room("T5", weight_bytes(folder, dtype, UNUSED), device, "encode the prompt elsewhere: --text-device cpu")
    with suppress_logs():
        encoder = load_into(lambda: build(config), folder, device, dtype, UNUSED)
        encoder.tie_weights()  # the embedding is stored once and has two names
    return lambda text: t5.run_encoder(encoder, t5.token_ids(tokenizer, text, MAX_TOKENS), device)


def text_digest(folder: Path) -> str:
    """16 hexadecimal digits of everything that embeddings depend on: weights, tokenizer and configuration."""
    return t5.combined_digest(digest(folder), (folder / TOKENIZER, folder / "config.json"))


def build(config: dict[str, Any]) -> Any:
    """transformers' encoder in the sizes of a published configuration. Raises: ModelError."""
    check_sizes(config)
    library = import_library("transformers.models.t5.modeling_t5")
    sizes = {name: config[name] for name in SIZES if name in config}
    try:
        return library.T5EncoderModel(library.T5Config(**sizes, attn_implementation="sdpa"))
    except Exception as error:  # the library has many for invalid sizes
        raise ModelError("T5's configuration is invalid", HINT) from error


def check_sizes(config: Mapping[str, Any]) -> None:
    """Reject sizes that no T5 has, before anything is computed from them. Raises: ModelError."""
    name = "T5's configuration"
    check_whole(name, config, LIMITS)
    check_number(name, "layer_norm_epsilon", config.get("layer_norm_epsilon", 1e-6), 1)
    buckets = config.get("relative_attention_num_buckets", 32) // 4
    distance = config.get("relative_attention_max_distance", 128)
    if distance <= buckets:
        raise ModelError(f"{name} is invalid: relative_attention_max_distance is {distance}, not over {buckets}", HINT)


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters of the encoder; sizes that the configuration omits are those of XXL."""
    sizes = XXL | dict(config)
    width, heads = sizes["d_model"], sizes["num_heads"]
    block = width * (4 * heads * sizes["d_kv"] + 3 * sizes["d_ff"] + 2)
    biases = sizes.get("relative_attention_num_buckets", 32) * heads
    return int(sizes["vocab_size"] * width + sizes["num_layers"] * block + biases + width)


def activation_bytes(config: Mapping[str, Any], dtype: torch.dtype) -> int:
    """Peak activations of the longest prompt: three inner vectors per token, since the MLP is gated.

    Raises: ModelError.
    """
    check_sizes(config)
    sizes = XXL | dict(config)
    token = 3 * sizes["d_ff"] + 2 * sizes["d_model"] + sizes["num_heads"] * MAX_TOKENS
    return int(MAX_TOKENS * (dtype.itemsize * token + 4 * sizes["d_model"]))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in the encoder's folder. Raises: ModelError."""
    return t5.load_tokenizer(folder / TOKENIZER, pull_command(SPEC, folder.parent))


def truncation_note(folder: Path, prompt: str, max_words: int = 24) -> list[str]:
    """One line on what is cut off a prompt: the last words kept, and the first `max_words` lost.

    Empty if nothing is, or if the tokenizer cannot be read.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except ModelError:
        return []
    ids: list[int] = tokenizer.encode(clean(prompt))
    if len(ids) < MAX_TOKENS:
        return []
    kept_words, lost_words = (
        str(tokenizer.decode(part)).split() for part in (ids[: MAX_TOKENS - 1], ids[MAX_TOKENS - 1 :])
    )
    ellipsis, words = " ..." if len(lost_words) > max_words else "", pluralize(len(lost_words), "word")
    return [
        f"the prompt has {len(ids) + 1} tokens and the model reads {MAX_TOKENS}: cut after "
        f'"... {" ".join(kept_words[-4:])}"; left out, {words}: "{" ".join(lost_words[:max_words])}{ellipsis}"'
    ]
