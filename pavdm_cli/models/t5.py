"""Text encoders of the T5 family: prompts to cached embeddings; weights are loaded only for prompts not yet cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.prompt_cache import PromptCache
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs
from pavdm_cli.runtime.untrusted import InvalidError, read_file

EOS = 1  # the token after a prompt
MAX_TOKENIZER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class T5TextEncoder:
    """Implements `TextEncoder`. Every prompt is encoded on its own, so there is no padding."""

    clean: Callable[[str], str]  # as the captions of training were cleaned
    cache: PromptCache  # by cleaned prompt
    estimate: Callable[[], dict[str, int]]  # bytes that encoding takes, by part

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """See `TextEncoder.encode`."""
        return [TextEmbedding(self.cache.get(self.clean(prompt))) for prompt in prompts]

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """See `TextEncoder.memory_bytes`."""
        return {} if self.cache.is_stored(self.clean(prompt)) else self.estimate()


@dataclass(frozen=True, slots=True)
class UnloadedTextEncoder:
    """Stands for published weights that are not downloaded, to plan memory."""

    estimate: dict[str, int]

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Impossible without weights."""
        raise NotImplementedError

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """See `TextEncoder.memory_bytes`."""
        return self.estimate


@dataclass(frozen=True, slots=True)
class RandomTextEncoder:
    """Stands for the encoder where weights are random: a random vector per word, and one for the end."""

    width: int

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Vectors that depend only on the number of words."""
        return [
            TextEmbedding(torch.randn(len(prompt.split()) + 1, self.width, generator=torch.Generator().manual_seed(0)))
            for prompt in prompts
        ]

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """Negligible."""
        return {}


def load_tokenizer(path: Path, command: str) -> Any:
    """The sentencepiece model of a file; command: the command that downloads it, for the hint. Raises: ModelError."""
    processor = import_library("sentencepiece").SentencePieceProcessor
    if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_TOKENIZER_BYTES):
        raise ModelError(f"{path} is not a tokenizer: it is not a regular file, or too large", "delete it")
    try:
        return processor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        if path.is_file():
            hint = f"delete it, and {command} downloads it again"
            raise ModelError(f"{path} is damaged: it is not a tokenizer", hint) from error
        raise ModelError(f"no tokenizer at {path}", f"{command} downloads it") from error


def token_ids(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """The tokens of a cleaned prompt and the end token, at most `max_tokens` in all."""
    ids: list[int] = tokenizer.encode(text)
    return [*ids[: max_tokens - 1], EOS]


@torch.no_grad()
def run_encoder(encoder: Any, ids: list[int], device: torch.device) -> Tensor:  # -> (L, width)
    """The token embeddings of one prompt, on the CPU."""
    with suppress_logs():
        embeds: Tensor = encoder(torch.tensor([ids], device=device)).last_hidden_state
    return embeds[0].cpu()


def combined_digest(weights: str, files: Iterable[Path]) -> str:
    """16 hexadecimal digits of a digest of weights and of the contents of small files.

    A missing file is skipped: it raises an error where it is needed.
    """
    total = hashlib.sha256(weights.encode())
    for path in files:
        with suppress(OSError, InvalidError):
            total.update(hashlib.sha256(read_file(path, MAX_TOKENIZER_BYTES)).digest())
    return total.hexdigest()[:16]
