"""Warnings about options that have no benefit or cost more than they gain."""

from __future__ import annotations

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.runtime.threads import available_cores


def find_ineffective_options(config: GenerationConfig) -> list[str]:
    """One line per such option."""
    execution, on_cpu = config.execution, config.device.type == "cpu"
    lines = []
    if execution.shard_weights == "on" and execution.processes == 1:
        lines.append("--shard-weights has no effect in one process: start several with torchrun")
    if execution.offload != "none" and on_cpu:
        lines.append("--offload has no benefit on a CPU: it only uses more memory")
    if "cfg_batching" not in config.auto_switches and config.guidance_scale == 1:
        lines.append("--cfg-batching has no effect here: each step is a single forward pass")
    if execution.overlap_decode == "on" and on_cpu:
        lines += decoding_advice(execution.threads, available_cores())
    return lines


def decoding_advice(threads: int, cores: int) -> list[str]:
    """A line if denoising and decoding would compete for CPU cores."""
    if threads < cores:
        return []
    fewer = f"--threads {max(1, cores - 1)}, or " if cores > 1 else ""
    reason = f"denoising uses {threads} of {cores} cores, and decoding competes for them"
    return [f"--overlap-decode on makes a video 20 to 30 % slower here: {reason}; try {fewer}--overlap-decode off"]
