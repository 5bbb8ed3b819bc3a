"""Whether and how several processes make one video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.config import GenerationConfig

ALONE = "start it without torchrun"
SHARDED = "weights are sharded: the transformer does not fit on one GPU"


def configure_processes(config: GenerationConfig, count: int) -> GenerationConfig:
    """The configuration of a video that `count` processes make together, which share the weights or divide the passes.

    Without sharded weights there must be two processes, one for each pass of guidance. Raises: UsageError.
    """
    if count == 1:
        return config
    _reject(_conflicts(config), count)
    execution = replace(config.execution, processes=count, cfg_batching="sequential")
    shared_config = replace(config, execution=execution, auto_switches=config.auto_switches - {"cfg_batching"})
    if execution.shard_weights == "auto":
        shared_config = _choose_sharding(shared_config)
    if not shared_config.execution.sharded:
        _reject(_conflicts_of_passes(config, count), count)
    return shared_config


def _choose_sharding(config: GenerationConfig) -> GenerationConfig:
    """Shard the weights where GPUs cannot hold all of them; processes on a CPU share its memory."""
    from pavdm_cli.generation.memory_plan import fits_unsharded

    if config.device.type == "cpu" or config.execution.offload != "none" or fits_unsharded(config):
        return config.with_execution(shard_weights="off")
    return replace(config.with_execution(shard_weights="on"), notes=(*config.notes, SHARDED))


def _reject(conflicts: Iterator[tuple[str, str]], count: int) -> None:
    for conflict, hint in conflicts:
        raise UsageError(f"{count} processes cannot make one video {conflict}", hint)


def _conflicts(config: GenerationConfig) -> Iterator[tuple[str, str]]:
    """What rules several processes out, and what helps."""
    execution = config.execution
    if execution.cfg_batching == "batched" and "cfg_batching" not in config.auto_switches:
        yield "with --cfg-batching batched", f"{ALONE}, or omit --cfg-batching for a new video"
    if execution.compile:
        yield "with --compile", f"omit --compile, or {ALONE}"
    if execution.cuda_graphs == "on":
        yield "with --cuda-graphs on", f"omit --cuda-graphs, or {ALONE}"
    if execution.device not in ("cuda", "cpu"):
        yield f"on {execution.device}", f"{ALONE}, or use --device cpu"


def _conflicts_of_passes(config: GenerationConfig, count: int) -> Iterator[tuple[str, str]]:
    """What leaves a process without a forward pass of its own."""
    if config.guidance_scale == 1:
        hint = f"{ALONE}, or choose a higher --guidance; --shard-weights on divides memory, not work"
        yield "whose steps are a single forward pass", hint
    if count > 2:
        yield "whose steps are two forward passes", "use --nproc-per-node 2, or --shard-weights on"
