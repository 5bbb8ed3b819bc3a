"""Training in several processes: who writes, what they agree on, and weights of which each holds a part."""

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
from pavdm_cli.models.stdit.transformer import STDiT

T = TypeVar("T")
TOGETHER = timedelta(seconds=30)  # for all processes to come to the same mistake
PATIENCE = timedelta(days=7)  # for one process that encodes its share of the videos longer than the others


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of one run: this one's number, how many there are, and what they agree through."""

    rank: int = 0
    count: int = 1
    talk: Any = None  # a process group for numbers on the host

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """This process' part of the things, as they follow one another."""
        return things[self.rank * len(things) // self.count : (self.rank + 1) * len(things) // self.count]

    def mean(self, value: float) -> float:
        """The mean of every process' value; all must call it."""
        return self._sum(value) / self.count

    def any(self, flag: bool) -> bool:
        """Whether any process says yes; all must call it."""
        return self._sum(float(flag)) > 0

    def wait(self) -> None:
        """Go on when all have come here."""
        self._sum(0.0)

    def _sum(self, value: float) -> float:
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.talk)
        return total.item()


ALONE = Processes()


def once(line: str, say: Callable[[], None], store: tuple[str, int], count: int) -> None:
    """Say a line that ends every process, in the first of `count` that comes to it; store: torchrun's address and port.

    Each goes on when all have come, or after a while: torchrun ends the others as soon as one of them has ended.
    """
    try:
        board = dist.TCPStore(*store, is_master=False, timeout=TOGETHER)  # type: ignore[attr-defined]
        come = board.add(f"pavdm: {line}", 1)
    except (RuntimeError, AttributeError):  # torchrun is gone, or this build of torch knows no processes
        say()
        return
    if come == 1:
        say()
    with suppress(RuntimeError):  # not all of them come to it
        if come == count:
            board.set(f"pavdm, all: {line}", "")
        board.wait([f"pavdm, all: {line}"])


@contextmanager
def joined(place: tuple[int, int, int], device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, for as long as the block lasts; place: rank, rank on this machine, count.

    Raises: DeviceError.
    """
    rank, local, count = place
    if count == 1:
        yield ALONE
        return
    if not dist.is_available():
        raise DeviceError("this build of torch cannot train in several processes", "start it without torchrun")
    if device.type not in ("cuda", "cpu"):
        raise DeviceError(f"several processes cannot train on {device.type}", "use CUDA GPUs or --device cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise DeviceError(f"no GPU is left for process {local} of this machine", "lower --nproc-per-node")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=count)
    with warnings.catch_warnings():
        # Of results that are views: nothing here changes one in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        yield Processes(rank, count, dist.new_group(backend="gloo", timeout=PATIENCE))
    dist.destroy_process_group()  # not after an error: it may wait for the others, who wait for this process


def shard(model: nn.Module, stdit: STDiT, device: torch.device, narrow: bool) -> None:
    """Leave every process its part of the weights, put together a block at a time while they are needed (FSDP2).

    narrow: in bfloat16 for the passes, gradients summed in float32. What the whole walk reads (tables, embedders) is
    one part; a block's text keys and values, made before the walk, are a part of their own.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = half if narrow else MixedPrecisionPolicy()
    for block in stdit.blocks:
        cross = block.cross_attn
        fully_shard(cross.kv_linear, mesh=mesh, mp_policy=policy)
        fully_shard([block.attn, cross.q_linear, cross.proj, block.mlp], mesh=mesh, mp_policy=policy)
    fully_shard(stdit.rope, mesh=mesh)  # angles keep their digits
    fully_shard(model, mesh=mesh, mp_policy=policy)


def gathered(tree: Any, keep: bool) -> Any:
    """The same dictionaries and lists with every weight whole, on the host where that is kept; all must call it."""
    if isinstance(tree, dict):
        return {name: gathered(value, keep) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(value, keep) for value in tree)
    if not _is_part(tree):
        return tree
    whole = tree.detach().full_tensor()
    return whole.cpu() if keep else None


def placed(whole: Tensor, like: Tensor) -> Tensor:
    """This process' part of a whole tensor, where `like` is held in parts; else the tensor itself."""
    if not _is_part(like) or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _is_part(value: object) -> bool:
    return hasattr(value, "full_tensor")
