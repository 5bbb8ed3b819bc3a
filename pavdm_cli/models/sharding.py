"""Shards the transformer of a video that several processes make: each holds a share and gathers a unit at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from pavdm_cli.models.adapter import LoadedModel
from pavdm_cli.models.distributed import shard_model
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
    for module, name in runner.model.forward_methods:
        register_fsdp_forward_method(module, name)
    return replace(runner, sharded=True)


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
