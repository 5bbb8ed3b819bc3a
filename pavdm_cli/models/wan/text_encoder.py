"""The text encoder umT5-XXL: a cleaned prompt to vectors, which are cached on disk; its weights are not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest_files, load_stored
from pavdm_cli.hub.weight_memory import check_room
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.prompt_cache import PromptCache
from pavdm_cli.models.wan.checkpoint import UNUSED_TEXT, text_config, text_tensors, tokenizer_file
from pavdm_cli.models.wan.config import TEXT_LENGTH
from pavdm_cli.models.wan.prompt import clean
from pavdm_cli.runtime.optional_imports import import_library, silenced
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.runtime.untrusted import InvalidError, read_file

END = 1  # the token after a prompt
LARGEST_TOKENIZER = 64 << 20  # bytes
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


class UMT5Text:
    """Loads the weights when there is a prompt that is not in the cache, and keeps none of them."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, cache: Path | None = None) -> None:
        """folder: of all parts; cache: where vectors are stored, None for nowhere."""
        self.folder, self.device, self.dtype = folder, device, dtype
        self._prompts = PromptCache(
            lambda text: self.opened()(text), lambda: f"{text_digest(folder)} {dtype} {TEXT_LENGTH}", cache
        )

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """As `TextEncoder.encode`; the rows of each prompt's own tokens."""
        return [TextEmbedding(self._prompts.get(clean(prompt))) for prompt in prompts]

    def memory(self, prompt: str, /) -> dict[str, int]:
        """As `TextEncoder.memory`."""
        if self._prompts.holds(clean(prompt)):
            return {}
        config = text_config(self.folder, text_tensors(self.folder).shapes())
        return {"weights": self.weight_bytes(), "activations": working_bytes(config, self.dtype)}

    def weight_bytes(self) -> int:
        """Bytes of the weights as they are run. Raises: ModelError."""
        shapes = text_tensors(self.folder).shapes()
        return self.dtype.itemsize * sum(torch.Size(shape).numel() for shape in shapes.values())

    def opened(self) -> Callable[[str], Tensor]:
        """Encodes cleaned prompts to vectors (L, width); the weights stay for as long as it does.

        Raises: ModelError, DeviceError.
        """
        stored, tokenizer = text_tensors(self.folder), load_tokenizer(tokenizer_file(self.folder))
        config = text_config(self.folder, stored.shapes())
        if tokenizer.get_piece_size() > config["vocab_size"]:
            pieces, words = tokenizer.get_piece_size(), config["vocab_size"]
            raise ModelError(f"the tokenizer has {pieces} pieces, umT5 {words}", "are they of one download?")
        check_room("umT5", self.weight_bytes(), self.device, "encode the prompt elsewhere: --text-device cpu")
        with silenced():
            encoder = load_stored(lambda: build(config), stored, self.device, lambda name: self.dtype, UNUSED_TEXT)
            encoder.tie_weights()  # the embedding that is stored once has two names

        def encode(text: str) -> Tensor:
            ids = torch.tensor([token_ids(tokenizer, text)], device=self.device)
            with silenced(), torch.no_grad():
                vectors: Tensor = encoder(ids).last_hidden_state
            return vectors[0].cpu()

        return encode


@dataclass(frozen=True, slots=True)
class UnloadedUMT5:
    """The published encoder before it is downloaded: what it will take."""

    dtype: torch.dtype

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Impossible without weights."""
        raise NotImplementedError

    def memory(self, prompt: str, /) -> dict[str, int]:
        """As `TextEncoder.memory`."""
        return {"weights": self.dtype.itemsize * PARAMETERS, "activations": working_bytes(XXL, self.dtype)}


@dataclass(frozen=True, slots=True)
class RandomText:
    """Stands for the encoder where weights are random: a random vector for every word and one for the end."""

    width: int

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Vectors that depend on nothing but the number of words."""
        generators = [torch.Generator().manual_seed(0) for _ in prompts]
        counts = [len(prompt.split()) + 1 for prompt in prompts]
        return [
            TextEmbedding(torch.randn(count, self.width, generator=generator))
            for count, generator in zip(counts, generators, strict=True)
        ]

    def memory(self, prompt: str, /) -> dict[str, int]:
        """None worth counting."""
        return {}


def build(config: Mapping[str, Any]) -> Any:
    """The encoder of transformers in these sizes. Raises: ModelError."""
    umt5 = import_library("transformers.models.umt5.modeling_umt5")
    try:
        sizes = umt5.UMT5Config(**config, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6)
        return umt5.UMT5EncoderModel(sizes)
    except Exception as error:  # the library has many for sizes that make no sense
        raise ModelError("umT5's sizes make no sense", "is it another model's encoder?") from error


def working_bytes(config: Mapping[str, Any], dtype: torch.dtype) -> int:
    """What the longest prompt's activations take at most: three inner vectors per token, and the attention weights."""
    token = 3 * config["d_ff"] + 4 * config["d_model"] + 2 * config["num_heads"] * TEXT_LENGTH
    return int(TEXT_LENGTH * (dtype.itemsize * token + 4 * config["d_model"]))


def text_digest(folder: Path) -> str:
    """16 hexadecimal digits of all that vectors depend on: weights and tokenizer. Raises: ModelError."""
    digest = hashlib.sha256(digest_files(sorted(set(text_tensors(folder).files.values()))).encode())
    with suppress(OSError, InvalidError):  # a missing tokenizer is an error where it is needed
        digest.update(hashlib.sha256(read_file(tokenizer_file(folder), LARGEST_TOKENIZER)).digest())
    return digest.hexdigest()[:16]


def load_tokenizer(path: Path) -> Any:
    """The sentencepiece model of a file. Raises: ModelError."""
    processor = import_library("sentencepiece").SentencePieceProcessor
    if not path.is_file() or path.stat().st_size > LARGEST_TOKENIZER:
        raise ModelError(f"no tokenizer at {path}", "it comes with the weights: `pavdm models pull`")
    try:
        return processor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path} is damaged: it is no tokenizer", "delete it and fetch it again") from error


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """At most 512 tokens of a cleaned prompt, the end's included."""
    ids: list[int] = tokenizer.encode(text)
    return [*ids[: TEXT_LENGTH - 1], END]


def cut_note(folder: Path, prompt: str) -> list[str]:
    """A line on a prompt that is too long; none where all is encoded, or the tokenizer is not there."""
    try:
        ids = load_tokenizer(tokenizer_file(folder)).encode(clean(prompt))
    except ModelError:
        return []
    if len(ids) < TEXT_LENGTH:
        return []
    lost = pluralize(len(ids) - TEXT_LENGTH + 1, "token")
    return [f"the prompt has {len(ids) + 1} tokens and the model reads {TEXT_LENGTH}: the last {lost} are left out"]
