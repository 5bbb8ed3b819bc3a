"""Tiny models with sharded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.distributed import is_sharded
from support import published
from support.requests import make_request
from support.wan import write_checkpoint

KINDS = ("wan", "opensora")
RUN = {"steps": 4, "device": "cpu", "threads": 1, "context": 1, "context_cache": "reuse", "solver": "unipc"}
WAN = {"size": (128, 128), "window": 4, "chunk": 2, "frames": 13}
OPENSORA = {"size": (64, 64), "window": 5, "chunk": 5, "frames": 34, "fps": 24}


def write_tiny(folder: Path, kind: str) -> Path:
    """A checkpoint of this kind."""
    return write_checkpoint(folder) if kind == "wan" else published.write(folder)


def tiny_config(folder: Path, kind: str, precision: str = "fp32", **values: Any) -> GenerationConfig:
    """A short video whose weights are sharded if several processes make it."""
    sizes = WAN if kind == "wan" else OPENSORA
    switches = {"shard_weights": "on", "cfg_batching": "sequential"}
    config = resolve(make_request("a kite", **{**RUN, **sizes, **switches, "model": str(folder), **values}))
    return config.with_execution(precision=precision)


def local_bytes(module: nn.Module) -> int:
    """Bytes of weights in this process; each sharded weight is padded to a multiple of the processes."""
    weights: list[Any] = list(module.parameters())
    local = [weight.to_local() if is_sharded(weight) else weight for weight in weights]
    return sum(weight.untyped_storage().nbytes() for weight in local)
