"""Open-Sora's text encoder: a cleaned prompt through T5 to vectors, which are kept on disk; T5 itself is not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest, load_into, read_json
from pavdm_cli.hub.config_checks import HINT, check_number, check_whole, within
from pavdm_cli.hub.weight_memory import check_room, weight_bytes
from pavdm_cli.hub.weights_dir import pulling
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.opensora.prompt import clean
from pavdm_cli.models.opensora.spec import SPEC
from pavdm_cli.models.prompt_cache import PromptCache
from pavdm_cli.runtime.optional_imports import import_library, silenced
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.runtime.untrusted import InvalidError, read_file

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
)  # all that is taken from a configuration
XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
LIMITS = {
    **within(XXL),
    "vocab_size": (2, 1 << 20),
    "relative_attention_num_buckets": (4, 1 << 12),
    "relative_attention_max_distance": (1, 1 << 16),
}
LONGEST = 300  # tokens, the end's included
LARGEST_TOKENIZER = 64 << 20  # bytes
END = 1  # the token after a prompt
UNUSED = ("decoder.", "lm_head.", "encoder.embed_tokens.")  # of the published model; the last is `shared` once more


class T5Text:
    """Reads the weights when there is a prompt it has not seen, and keeps none of them afterwards."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, cache: Path | None = None) -> None:
        """folder: weights, configuration and tokenizer; cache: where vectors are kept, None for nowhere."""
        self.folder, self.device, self.dtype, self.cache = folder, device, dtype, cache
        self._prompts = PromptCache(self._encode, lambda: f"{text_digest(folder)} {dtype}", cache)

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """As `TextEncoder.encode`; read by itself, a prompt needs no padding."""
        rows = [self._prompts.get(clean(prompt)) for prompt in prompts]
        return [TextEmbedding(row, torch.ones(len(row), dtype=torch.bool)) for row in rows]

    def memory(self, prompt: str, /) -> dict[str, int]:
        """As `TextEncoder.memory`."""
        config, weights = read_json(self.folder / "config.json"), weight_bytes(self.folder, self.dtype, UNUSED)
        return {} if self.knows(prompt) else {"weights": weights, "activations": working_bytes(config, self.dtype)}

    def knows(self, prompt: str) -> bool:
        """Whether a prompt's vectors are on disk, so that no weights are needed."""
        return self._prompts.holds(clean(prompt))

    def opened(self) -> Callable[[str], Tensor]:
        """A reader of many prompts: cleaned text to vectors (L, width). The weights stay for as long as it is kept.

        Raises: ModelError, DeviceError.
        """
        config = read_json(self.folder / "config.json")
        _check_pieces(self.folder / "spiece.model", config)  # what is wrong is known before the weights are read
        wanted = weight_bytes(self.folder, self.dtype, UNUSED)
        check_room("T5", wanted, self.device, "read the prompt elsewhere: --text-device cpu")
        with silenced():
            encoder = load_into(lambda: build(config), self.folder, self.device, self.dtype, UNUSED)
            encoder.tie_weights()  # the table that is stored once has two names

        def read(text: str) -> Tensor:
            ids = torch.tensor([token_ids(self.folder, text)], device=self.device)
            with silenced():
                vectors: Tensor = encoder(ids).last_hidden_state
            return vectors[0].cpu()

        return read

    def _encode(self, text: str) -> Tensor:
        return self.opened()(text)


class UnloadedT5:
    """The published T5 before it is downloaded: what it will take."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Impossible without weights."""
        raise NotImplementedError

    def memory(self, prompt: str, /) -> dict[str, int]:
        """As `TextEncoder.memory`."""
        return {"weights": self.dtype.itemsize * parameters({}), "activations": working_bytes({}, self.dtype)}


def text_digest(folder: Path) -> str:
    """16 hexadecimal digits of all that vectors depend on: weights, tokenizer and configuration."""
    found = hashlib.sha256(digest(folder).encode())
    for name in ("spiece.model", "config.json"):
        with suppress(OSError, InvalidError):  # what is missing is an error where it is needed
            found.update(hashlib.sha256(read_file(folder / name, LARGEST_TOKENIZER)).digest())
    return found.hexdigest()[:16]


def build(config: dict[str, Any]) -> Any:
    """transformers' encoder of T5 in the sizes of a published configuration. Raises: ModelError."""
    check_sizes(config)
    t5 = import_library("transformers.models.t5.modeling_t5")
    given = {name: config[name] for name in SIZES if name in config}
    try:
        return t5.T5EncoderModel(t5.T5Config(**given, attn_implementation="sdpa"))
    except Exception as error:  # the library has many for sizes that make no sense
        raise ModelError("T5's configuration makes no sense", HINT) from error


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse sizes that no T5 has, before anything is reckoned with them. Raises: ModelError."""
    what = "T5's configuration"
    check_whole(what, config, LIMITS)
    check_number(what, "layer_norm_epsilon", config.get("layer_norm_epsilon", 1e-6), 1)
    buckets = config.get("relative_attention_num_buckets", 32) // 4
    nearer = config.get("relative_attention_max_distance", 128)
    if nearer <= buckets:
        raise ModelError(
            f"{what} makes no sense: relative_attention_max_distance is {nearer}, not over {buckets}", HINT
        )


def _check_pieces(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a tokenizer with words that T5's table lacks. Raises: ModelError."""
    check_sizes(config)
    pieces, words = _tokenizer(path).get_piece_size(), config.get("vocab_size", XXL["vocab_size"])
    if pieces > words:
        raise ModelError(f"{path} has {pieces} pieces, T5's table {words} (vocab_size)", "are they of one download?")


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the encoder of a configuration; what that leaves out is as in XXL."""
    sizes = XXL | dict(config)
    width, heads = sizes["d_model"], sizes["num_heads"]
    block = width * (4 * heads * sizes["d_kv"] + 3 * sizes["d_ff"] + 2)
    biases = sizes.get("relative_attention_num_buckets", 32) * heads
    return int(sizes["vocab_size"] * width + sizes["num_layers"] * block + biases + width)


def working_bytes(config: Mapping[str, Any], dtype: torch.dtype) -> int:
    """What the longest prompt's activations take at most: three inner vectors of a token where the MLP is gated.

    Raises: ModelError.
    """
    check_sizes(config)
    sizes = XXL | dict(config)
    token = 3 * sizes["d_ff"] + 2 * sizes["d_model"] + sizes["num_heads"] * LONGEST
    return int(LONGEST * (dtype.itemsize * token + 4 * sizes["d_model"]))


def token_ids(folder: Path, text: str) -> list[int]:
    """What T5 reads of a text: at most 300 tokens, the end's included. Raises: ModelError."""
    ids: list[int] = _tokenizer(folder / "spiece.model").encode(text)
    return [*ids[: LONGEST - 1], END]


def cut_note(folder: Path, prompt: str, shown: int = 24) -> list[str]:
    """One line on what `token_ids` leaves out of a prompt; it names the last words read, and the first `shown` lost.

    None where all is read, or the tokenizer cannot be.
    """
    try:
        tokenizer = _tokenizer(folder / "spiece.model")
    except ModelError:
        return []
    ids: list[int] = tokenizer.encode(clean(prompt))
    if len(ids) < LONGEST:
        return []
    read, lost = (str(tokenizer.decode(part)).split() for part in (ids[: LONGEST - 1], ids[LONGEST - 1 :]))
    more, words = " ..." if len(lost) > shown else "", pluralize(len(lost), "word")
    return [
        f"the prompt has {len(ids) + 1} tokens and the model reads {LONGEST}: cut after "
        f'"... {" ".join(read[-4:])}"; left out, {words}: "{" ".join(lost[:shown])}{more}"'
    ]


def _tokenizer(path: Path) -> Any:
    processor = import_library("sentencepiece").SentencePieceProcessor
    if path.exists() and not (path.is_file() and path.stat().st_size <= LARGEST_TOKENIZER):
        raise ModelError(f"{path} is no tokenizer: it is not a regular file, or too large", "delete it")
    try:
        return processor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        fetches = f"{pulling(SPEC, path.parent.parent)} fetches it"
        if path.is_file():
            raise ModelError(f"{path} is damaged: it is no tokenizer", f"delete it, and {fetches} again") from error
        raise ModelError(f"no tokenizer at {path}", fetches) from error
