"""What a user should know of a job before it starts: options that bring nothing, or cost more than they bring."""

from __future__ import annotations

import torch

from pavdm_cli.generation.pipeline import Job
from pavdm_cli.models.devices import pick_device
from pavdm_cli.runtime.threads import available_cores


def advice(job: Job) -> list[str]:
    """A line for each such option."""
    engine, on_cpu = job.sampling.engine, pick_device(job.sampling.device).type == "cpu"
    said = []
    if engine.offload != "none" and on_cpu:
        said.append("--offload only takes more memory on cpu: the weights are there as it is")
    if engine.cfg_batching != "auto" and job.guidance_scale == 1:
        said.append("--cfg-batching does nothing here: guidance takes one pass")
    if engine.overlap_decode == "on" and on_cpu:
        said += decoding_advice(job.sampling.threads or torch.get_num_threads(), available_cores())
    return said


def decoding_advice(threads: int, cores: int) -> list[str]:
    """A line where steps and decoding would share cores."""
    if threads < cores:
        return []
    fewer = f"--threads {max(1, cores - 1)}, or " if cores > 1 else ""
    shared = f"the steps take {threads} of {cores} cores and decoding the same ones"
    return [f"--overlap-decode on makes a video 20 to 30 % slower here: {shared}; try {fewer}--overlap-decode off"]
