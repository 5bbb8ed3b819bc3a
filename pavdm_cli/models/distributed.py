"""Several processes with torch.distributed: collectives, FSDP2 sharding, and full tensors for saving."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pavdm_cli.errors import DeviceError

T = TypeVar("T")
ERROR_TIMEOUT = timedelta(seconds=30)  # for all processes to reach the same error
BARRIER_TIMEOUT = timedelta(days=7)  # one process may encode its share of the videos much longer than the others


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of one run; collective methods must be called by all of them."""

    rank: int = 0
    world_size: int = 1
    cpu_group: Any = None  # a gloo group

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's contiguous share of the items."""
        return items[self.rank * len(items) // self.world_size : (self.rank + 1) * len(items) // self.world_size]

    def mean(self, value: float) -> float:
        """The mean over all processes (collective)."""
        return self._sum(value) / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process (collective)."""
        return self._sum(float(flag)) > 0

    def barrier(self) -> None:
        """Wait for all processes (collective)."""
        self._sum(0.0)

    def _sum(self, value: float) -> float:
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.cpu_group)
        return total.item()


SINGLE_PROCESS = ProcessGroup()


def report_once(line: str, report: Callable[[], None], store: tuple[str, int], world_size: int) -> None:
    """Report an error that ends every process from the first one that reaches it; `store` is torchrun's (host, port).

    Each process then waits for the others, up to a timeout: torchrun kills them as soon as one has ended.
    """
    try:
        tcp_store = dist.TCPStore(*store, is_master=False, timeout=ERROR_TIMEOUT)  # type: ignore[attr-defined]
        num_arrived = tcp_store.add(f"pavdm: {line}", 1)
    except (RuntimeError, AttributeError):  # torchrun has exited, or torch was built without distributed
        report()
        return
    if num_arrived == 1:
        report()
    with suppress(RuntimeError):  # not all of them reach it
        if num_arrived == world_size:
            tcp_store.set(f"pavdm, all: {line}", "")
        tcp_store.wait([f"pavdm, all: {line}"])


@contextmanager
def init_distributed(ranks: tuple[int, int, int], device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes started by torchrun; ranks: rank, local rank, world size. Raises: DeviceError."""
    rank, local_rank, world_size = ranks
    if world_size == 1:
        yield SINGLE_PROCESS
        return
    if not dist.is_available():
        raise DeviceError("this build of torch does not support several processes", "start it without torchrun")
    if device.type not in ("cuda", "cpu"):
        raise DeviceError(f"several processes cannot train on {device.type}", "use CUDA GPUs or --device cpu")
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise DeviceError(f"no GPU is left for process {local_rank} of this machine", "lower --nproc-per-node")
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=world_size)
    with warnings.catch_warnings():
        # About outputs that are views: nothing here modifies one in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        yield ProcessGroup(rank, world_size, dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT))
    dist.destroy_process_group()  # not after an error: it may wait for processes that wait for this one


def shard_model(
    model: nn.Module, units: Sequence[list[nn.Module]], device: torch.device, bf16: bool = False, release: bool = False
) -> None:
    """Shard the weights with FSDP2, which gathers one unit at a time.

    units: groups of modules whose weights are gathered for their calls; weights read outside of them belong to the
    model. bf16: compute in bfloat16 and reduce gradients in float32; frozen units (rotary angles) stay in float32.
    release: drop the model's own gathered weights after each call too.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    mixed_precision = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = mixed_precision if bf16 else MixedPrecisionPolicy()
    for unit in units:
        is_trained = any(weight.requires_grad for module in unit for weight in module.parameters())
        unit_policy = policy if is_trained else MixedPrecisionPolicy()
        fully_shard(unit if len(unit) > 1 else unit[0], mesh=mesh, mp_policy=unit_policy)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True if release else None)


def full_tensors(tree: Any, keep: bool) -> Any:
    """Gather the sharded tensors in nested dicts and lists to the CPU, or to None without `keep` (collective)."""
    if isinstance(tree, dict):
        return {name: full_tensors(value, keep) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(full_tensors(value, keep) for value in tree)
    if not is_sharded(tree):
        return tree
    full = full_tensor(tree)
    return full.cpu() if keep else None


def full_tensor(value: Tensor) -> Tensor:
    """The detached tensor, gathered if it is sharded (collective then)."""
    full: Tensor = value.detach()
    return full.full_tensor() if is_sharded(full) else full  # type: ignore[attr-defined]


def shard_like(full: Tensor, reference: Tensor) -> Tensor:
    """This process's shard of a full tensor if `reference` is sharded, else the tensor itself."""
    if not is_sharded(reference) or full.shape != reference.shape:
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    return distribute_tensor(full.to(reference.device), reference.device_mesh, reference.placements, src_data_rank=None)


def local_rows(weight: Tensor) -> slice:
    """The rows of a weight sharded over all processes that this process holds."""
    rows = -(-len(weight) // dist.get_world_size())
    first = min(dist.get_rank() * rows, len(weight))
    return slice(first, min(first + rows, len(weight)))


def is_sharded(value: object) -> bool:
    """Whether a tensor is divided among processes."""
    return hasattr(value, "full_tensor")
