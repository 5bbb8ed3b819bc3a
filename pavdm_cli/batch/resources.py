"""What a job needs of a cluster: GPUs, cores and memory, from its memory plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pavdm_cli.batch.job import Job
from pavdm_cli.generation import memory_plan, stored_request
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.devices import HOST

PROCESS_BYTES = {"cpu": 1_000_000_000, "cuda": 4_000_000_000}  # host memory of Python, torch and the GPU's driver
UNPLANNED = ("prompt", "seed")  # fields that hardly change what a video needs


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of a node, or those that a job needs."""

    gpus: float
    cpus: float
    host_bytes: float  # of memory

    def fit_in(self, node: Resources) -> bool:
        """Whether a node has all of them."""
        return self.gpus <= node.gpus and self.cpus <= node.cpus and self.host_bytes <= node.host_bytes

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} GPU, " if self.gpus else ""
        return f"{gpus}{self.cpus:g} CPU and {self.host_bytes / 1e9:.1f} GB of memory"


def device_on(job: Job, nodes: Sequence[Resources]) -> str:
    """The device of a job: with `auto` a GPU if a node has one."""
    name = job.request.execution.device
    return ("cuda" if any(node.gpus for node in nodes) else "cpu") if name == "auto" else name


def threads_on(device: str, nodes: Sequence[Resources], jobs: int) -> int:
    """CPU threads of a job that does not set them: all jobs share the cores; 0 on a GPU: torch's default."""
    if device != "cpu":
        return 0
    share = sum(node.cpus for node in nodes) // max(1, jobs)
    return max(1, int(min(share, max((node.cpus for node in nodes), default=1))))


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans the memory of jobs, once for all that differ only in prompt and seed."""

    plans: dict[str, int] = field(default_factory=dict)

    def needed_by(self, job: Job, device: str, threads: int) -> Resources:
        """The resources of a job, on a device that this machine need not have. Raises: UsageError, ModelError."""
        fields = stored_request.to_json(job.request) | dict.fromkeys(UNPLANNED) | {"device": device}
        key = json.dumps(fields, sort_keys=True)
        if key not in self.plans:
            self.plans[key] = host_bytes(job.request, device)
        return Resources(gpus=float(device == "cuda"), cpus=float(max(1, threads)), host_bytes=self.plans[key])


def for_any_device(request: Request) -> Request:
    """A request that can be checked where the device of its job is missing."""
    if request.execution.device == "cpu":
        return request
    options = {name: value for name, value in request.options.items() if name != "text_device"}
    execution = replace(request.execution, device="cpu", precision="auto", attention="auto")
    return replace(request, execution=execution, options=options)


def host_bytes(request: Request, device: str) -> int:
    """Host memory of a video at its peak."""
    config, process = resolve(for_any_device(request)), PROCESS_BYTES.get(device, PROCESS_BYTES["cpu"])
    if not memory_plan.needs_memory_plan(config):
        return process
    plan = memory_plan.estimate_plan(config.with_execution(device=device) if device == "cuda" else config)
    host = [max(each.needs) for each in plan.devices if each.device == HOST]
    return sum(host) + process
