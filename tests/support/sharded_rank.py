"""One of two processes that make one video with sharded weights; rank 0 prints what `test_sharding` checks.

Arguments: the folder of a tiny model, its kind, and "fail" for a worker that fails in a step. The environment is that
of torchrun.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.processes import configure_processes
from pavdm_cli.hub import checkpoint
from pavdm_cli.models.parallel import Channel, LostProcessError
from pavdm_cli.models.worker import Worker
from support.sharded import local_bytes, tiny_config


def sample(config: GenerationConfig) -> tuple[Tensor, int]:
    """The latents, and the bytes of weights that this process holds afterwards."""
    model = pipeline.open_model(config)
    latents = torch.cat(list(pipeline.sample_latents(config, model)), dim=1)
    return latents, local_bytes(model.transformer)


class CountedReads:
    """A safetensors file, or a slice of a tensor in it, that adds the bytes read to a list."""

    def __init__(self, inner: Any, sizes: list[int]) -> None:
        self._inner, self._sizes = inner, sizes

    def __enter__(self) -> CountedReads:
        return CountedReads(self._inner.__enter__(), self._sizes)

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_slice(self, name: str) -> CountedReads:
        return CountedReads(self._inner.get_slice(name), self._sizes)

    def get_tensor(self, name: str) -> Tensor:
        return self._count(self._inner.get_tensor(name))

    def __getitem__(self, rows: slice) -> Tensor:
        return self._count(self._inner[rows])

    def _count(self, tensor: Tensor) -> Tensor:
        self._sizes.append(tensor.nbytes)
        return tensor


def count_reads() -> list[int]:
    """The bytes of every tensor that this process reads from now on."""
    sizes, open_checkpoint = list[int](), checkpoint.open_checkpoint
    checkpoint.open_checkpoint = lambda path: CountedReads(open_checkpoint(path), sizes)
    return sizes


def work(fails: bool) -> tuple[int, int]:
    """Serve rank 0 until it ends; the bytes of weights that this process held, and those that it read."""
    sizes = count_reads()
    worker = Worker(Channel(1, 2), 1)
    if fails:
        setattr(worker, "velocity", lambda *arguments: 1 / 0)  # noqa: B010
    with suppress(RuntimeError):
        while True:
            worker.serve_call()
    assert worker.runner
    return local_bytes(worker.runner.transformer), sum(sizes)


def main(folder: Path, kind: str) -> dict[str, object]:
    """Compares the latents of two processes with those of one."""
    config = tiny_config(folder, kind)
    try:
        together, share = sample(configure_processes(config, 2))
    except LostProcessError as error:
        return {"error": error.message}
    alone, whole = sample(config)
    difference = (together - alone).abs().max().item()
    return {"difference": difference, "largest": alone.abs().max().item(), "share": share, "whole": whole}


if __name__ == "__main__":
    result = work("fail" in sys.argv) if os.environ["RANK"] == "1" else main(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps(result), flush=True)
    os._exit(0)  # threads of the connection may still run
