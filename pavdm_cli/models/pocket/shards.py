"""Weights in one safetensors file, or in several with an index, in the layout of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.checkpoint import locate_tensors
from pavdm_cli.hub.safetensors_file import open_weights

MAX_HEADER_BYTES = 200_000  # of a shard, reserved within its size
INDEX = ".index.json"


@dataclass(frozen=True, slots=True)
class ShardedFile:
    """Several open files, as `safe_open` gives one; the header is that of the first."""

    files: Mapping[str, Any]  # the file of each tensor
    first: Any

    def __enter__(self) -> ShardedFile:
        return self

    def __exit__(self, *error: object) -> None:
        for file in {id(file): file for file in self.files.values()}.values():
            file.__exit__(*error)

    def metadata(self) -> dict[str, str]:
        """The header of the first shard."""
        return dict(self.first.metadata() or {})

    def keys(self) -> list[str]:
        """The names of all tensors."""
        return [*self.files]

    def get_tensor(self, name: str) -> Tensor:
        """A tensor of any shard."""
        tensor: Tensor = self.files[name].get_tensor(name)
        return tensor


def is_sharded(path: Path) -> bool:
    """Whether an index replaces the file."""
    return not path.exists() and path.with_name(path.name + INDEX).exists()


def open_file_or_shards(path: Path) -> Any:
    """The file, or its shards. Raises: ModelError if shards do not fit their index, else as `open_weights`."""
    if not is_sharded(path):
        return open_weights(path)
    paths = _shards_of(path)
    opened = {shard: open_weights(shard) for shard in sorted({*paths.values()})}
    return ShardedFile({name: opened[shard] for name, shard in paths.items()}, next(iter(opened.values())))


def files_of(path: Path) -> list[Path]:
    """The file, or its shards in order. Raises: ModelError."""
    return sorted({*_shards_of(path).values()}) if is_sharded(path) else [path]


def save_shards(weights: Mapping[str, Tensor], path: Path, header: dict[str, str], max_bytes: int) -> None:
    """Write one file if it is small enough, else shards and their index, instead of what is there. Raises: OutputError.

    While shards are written there is no index, so that an interrupted export is no model instead of a mixed one.
    """
    shards = _split(weights, max_bytes - MAX_HEADER_BYTES)
    names = [f"{path.stem}-{i:05}-of-{len(shards):05}{path.suffix}" for i in range(1, len(shards) + 1)]
    index = path.with_name(path.name + INDEX)
    index.unlink(missing_ok=True)
    if len(shards) == 1:
        names = [path.name]
    for name, shard in zip(names, shards, strict=True):
        with atomic_write(path.with_name(name)) as temporary:
            save_file(shard, temporary, header if name == names[0] else {"format": "pt"})
    for stale in {path, *path.parent.glob(f"{path.stem}-*-of-*{path.suffix}")}:
        if stale.name not in names:
            stale.unlink(missing_ok=True)
    if len(shards) > 1:
        _write_index(index, dict(zip(names, shards, strict=True)))


def _shards_of(path: Path) -> dict[str, Path]:
    names = (path.name + INDEX, f"{path.stem}-")
    return locate_tensors(path.parent, belongs=lambda name: name.startswith(names))


def _split(weights: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Consecutive tensors in groups of at most `max_bytes`, but at least one tensor each."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in weights.items():
        if groups[-1] and size + value.nbytes > max_bytes:
            groups.append({})
            size = 0
        groups[-1][name] = value
        size += value.nbytes
    return groups


def _write_index(path: Path, shards: Mapping[str, Mapping[str, Tensor]]) -> None:
    total = sum(value.nbytes for shard in shards.values() for value in shard.values())
    weight_map = {name: file for file, shard in shards.items() for name in shard}
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
