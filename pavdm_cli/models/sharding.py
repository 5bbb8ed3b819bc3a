"""Shards the transformer of a video that several processes make: each holds a share and gathers a unit at a time.

A process reads from the files only its own share, so that no host has to hold the whole transformer for each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import StoredTensors, copy_to
from pavdm_cli.hub.finite import check_finite, min_max
from pavdm_cli.models.adapter import LoadedModel
from pavdm_cli.models.distributed import is_sharded, local_rows, shard_model
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.runner import ModelRunner

GATHERED_UNITS = 3  # the one that runs, and the next one as it arrives and as it is copied


def with_sharding(runner: ModelRunner, execution: ExecutionConfig) -> ModelRunner:
    """The same model with its weights sharded, if the switches say so, and all else on its device; in place.

    All processes must then call the transformer in the same order.
    """
    if not execution.sharded:
        return runner
    from torch.distributed.fsdp import register_fsdp_forward_method

    # About outputs that are views: nothing modifies one in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    runner.vae.to(runner.device)
    shard_model(runner.transformer, runner.model.shard_units, runner.device, release=True)
    if tensors := runner.model.stored_transformer:
        load_shards(runner.transformer, tensors, runner.device)
    for module, name in runner.model.forward_methods:
        register_fsdp_forward_method(module, name)
    return replace(runner, sharded=True)


def load_shards(model: nn.Module, tensors: StoredTensors, device: torch.device) -> None:
    """Load this process's rows of every sharded weight of a model on the meta device, and all of every other tensor.

    Raises: ModelError.
    """
    targets: dict[str, Tensor] = model.state_dict()
    names = {tensors.name_in_file(name): name for name in tensors.files}

    def read(file: Any, name: str) -> Tensor:
        target = targets[names[name]]
        if not is_sharded(target):
            return copy_to(file.get_tensor(name), device, target.dtype)
        return copy_to(file.get_slice(name)[local_rows(target)], device, target.dtype)

    shards = tensors.read(read)
    check_finite({name: min_max(shard) for name, shard in shards.items()}, tensors.files.__getitem__)
    model.load_state_dict({name: _as_dtensor(shard, targets[name]) for name, shard in shards.items()}, assign=True)


def _as_dtensor(shard: Tensor, target: Tensor) -> Tensor:
    """This process's shard as a DTensor like `target`; the tensor itself if `target` is not sharded."""
    if not is_sharded(target):
        return shard
    from torch.distributed.tensor import DTensor

    assert isinstance(target, DTensor)
    mesh, placements = target.device_mesh, target.placements
    return DTensor.from_local(shard, mesh, placements, run_check=False, shape=target.shape, stride=target.stride())


def sharded_bytes(model: LoadedModel, processes: int) -> tuple[int, int]:
    """Bytes of the transformer on each device: its share, and the most that is gathered at once."""
    units = list(_unit_bytes(model))
    total = sum(weight.nbytes for weight in model.transformer.parameters())
    share = -(-total // processes) + sum(buffer.nbytes for buffer in model.transformer.buffers())
    return share, total - sum(units) + GATHERED_UNITS * max(units)


def _unit_bytes(model: LoadedModel) -> Iterator[int]:
    counted_weights = set[nn.Parameter]()
    for unit in model.shard_units:
        unit_weights = {weight for module in unit for weight in module.parameters()} - counted_weights
        counted_weights |= unit_weights
        yield sum(weight.nbytes for weight in unit_weights)
