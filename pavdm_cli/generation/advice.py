"""What a user should know before a video is started: options that bring nothing, or cost more than they bring."""

from __future__ import annotations

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.runtime.threads import available_cores


def advice(config: GenerationConfig) -> list[str]:
    """A line for each such option."""
    execution, on_cpu = config.execution, config.device.type == "cpu"
    said = []
    if execution.offload != "none" and on_cpu:
        said.append("--offload only takes more memory on cpu: the weights are there as it is")
    if "cfg_batching" not in config.open_switches and config.guidance_scale == 1:
        said.append("--cfg-batching does nothing here: guidance takes one pass")
    if execution.overlap_decode == "on" and on_cpu:
        said += decoding_advice(execution.threads, available_cores())
    return said


def decoding_advice(threads: int, cores: int) -> list[str]:
    """A line where steps and decoding would share cores."""
    if threads < cores:
        return []
    fewer = f"--threads {max(1, cores - 1)}, or " if cores > 1 else ""
    shared = f"the steps take {threads} of {cores} cores and decoding the same ones"
    return [f"--overlap-decode on makes a video 20 to 30 % slower here: {shared}; try {fewer}--overlap-decode off"]
