"""Whether and how several processes make one video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.config import GenerationConfig


def for_processes(config: GenerationConfig, count: int) -> GenerationConfig:
    """The configuration of a video that `count` processes make together, which each run one pass of guidance.

    Raises: UsageError.
    """
    if count == 1:
        return config
    for conflict, hint in _conflicts(config, count):
        raise UsageError(f"{count} processes cannot make one video {conflict}", hint)
    execution = replace(config.execution, processes=count, cfg_batching="sequential")
    return replace(config, execution=execution, open_switches=config.open_switches - {"cfg_batching"})


def _conflicts(config: GenerationConfig, count: int) -> Iterator[tuple[str, str]]:
    """What rules several processes out, and what helps."""
    execution, alone = config.execution, "start it without torchrun"
    batched = execution.cfg_batching == "batched" and "cfg_batching" not in config.open_switches
    if config.guidance_scale == 1:
        yield "whose steps are a single forward pass", f"{alone}, or choose a higher --guidance"
    if count > 2:
        yield "whose steps are two forward passes", "use --nproc-per-node 2"
    if batched:
        yield "with --cfg-batching batched", f"{alone}, or leave it out for a new video"
    if execution.compile:
        yield "with --compile", f"leave it out, or {alone}"
    if execution.cuda_graphs == "on":
        yield "with --cuda-graphs on", f"leave it out, or {alone}"
    if execution.device not in ("cuda", "cpu"):
        yield f"on {execution.device}", f"{alone}, or use --device cpu"
