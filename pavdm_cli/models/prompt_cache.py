"""Encoded prompts, cached in memory and on disk, so that a text encoder is loaded only on a cache miss."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.hub.safetensors_file import read_tensor
from pavdm_cli.runtime.untrusted import InvalidError

TENSOR = "vectors"  # its name in a file


@dataclass(frozen=True, slots=True)
class PromptCache:
    """Token embeddings (L, width) by cleaned prompt."""

    encode: Callable[[str], Tensor]  # for a prompt that is not in the cache
    key: Callable[[], str]  # everything that embeddings depend on, except the prompt
    folder: Path | None = None  # None: not on disk
    embeds: dict[str, Tensor] = field(default_factory=dict)  # in this process

    def get(self, text: str) -> Tensor:  # -> (L, width)
        """The embeddings of a prompt, encoded on a miss."""
        if text not in self.embeds:
            self.embeds[text] = self._load_or_encode(text)
        return self.embeds[text]

    def is_stored(self, text: str) -> bool:
        """Whether a prompt's embeddings are on disk, so that no weights are needed."""
        return self.folder is not None and self._path(self.folder, text).exists()

    def _path(self, folder: Path, text: str) -> Path:
        return folder / f"{hashlib.sha256(f'{self.key()} {text}'.encode()).hexdigest()[:32]}.safetensors"

    def _load_or_encode(self, text: str) -> Tensor:
        if self.folder is None:
            return self.encode(text)
        path = self._path(self.folder, text)
        try:
            return read_tensor(path, TENSOR)
        except (OSError, SafetensorError, InvalidError):
            embeds = self.encode(text)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({TENSOR: embeds}, path)
        except (OSError, SafetensorError):
            with suppress(OSError):
                path.unlink()  # the next run encodes the prompt again
        return embeds
