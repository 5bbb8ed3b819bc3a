"""A CPU model of CUDA graphs: one call's operations are recorded, then run again on the same storages with no Python.

As a capture does, it refuses what reads a value back from the device, what brings one in from Python, and randomness;
and what a recorded call wrote is there only after a replay: until then it is garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "bincount"}
READS_IN_PYTHON = {"item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__"}
ENTERS = {"tensor", "as_tensor", "asarray", "from_numpy", "new_tensor", "pin_memory"}
TAGS = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded)


class CaptureError(RuntimeError):
    """A call that cannot be recorded."""


class InPython(TorchFunctionMode):
    """Tells of calls that wait for the device or copy from the host: on a CPU some of them never reach an operation."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        to_host = name == "to" and any(str(value) == "cpu" for value in tree_leaves((args[1:], kwargs or {})))
        if name in READS_IN_PYTHON | ENTERS or to_host:
            self.tell(name)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Notes every operation with what it was given and gave, and tells of those that wait for the device."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.tell = tell
        self.noted: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in READS or (any(tag in func.tags for tag in TAGS) and not harmless(name, args)):
            self.tell(name)
        out = func(*args, **(kwargs or {}))
        self.noted.append((func, args, kwargs or {}, out))
        return out


def harmless(name: str, args: Any) -> bool:
    """Rows taken by their numbers (by truth values they would have to be counted first); attention without dropout."""
    by_number = name == "index" and all(index is None or index.dtype != torch.bool for index in args[1])
    return by_number or name.startswith("_scaled_dot_product")


def waits(call: Callable[[], object]) -> list[str]:
    """What a call does that makes the host wait for a GPU, or copies from the host to it."""
    waits_seen: list[str] = []
    with InPython(waits_seen.append), Operations(waits_seen.append):
        call()
    return waits_seen


@dataclass
class Tape:
    """Records calls, and keeps how many operations each had."""

    lengths: list[int] = field(default_factory=list)
    replays: int = 0
    bytes: int = 0

    def capture(self, call: Callable[[], Tensor], /) -> tuple[Tensor, Callable[[], object]]:
        """See `GraphBackend`."""
        call()
        with InPython(refuse), Operations(refuse) as tape:
            out = call()
        self.lengths.append(len(tape.noted))
        self.bytes += spoil(tape.noted)
        return out, lambda: self._replay(tape.noted)

    def _replay(self, noted: list[tuple[Any, Any, Any, Any]]) -> None:
        self.replays += 1
        for func, args, kwargs, out in noted:
            for then, now in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(then, Tensor) and then.data_ptr() != now.data_ptr():
                    then.copy_(now)


def refuse(name: str) -> None:
    raise CaptureError(f"{name} cannot be part of a recording")


def storages(value: Any) -> Iterator[int]:
    yield from (leaf.untyped_storage().data_ptr() for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def spoil(noted: list[tuple[Any, Any, Any, Any]]) -> int:
    """Overwrites all that was made while recording; the bytes it takes."""
    before, tensors = set[int](), dict[int, Tensor]()
    for _, args, kwargs, out in noted:
        before |= {at for at in storages((args, kwargs)) if at not in tensors}
        tensors |= {
            leaf.untyped_storage().data_ptr(): leaf
            for leaf in tree_leaves(out)
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in before
        }
    for tensor in tensors.values():
        tensor.untyped_storage().fill_(0x7F)
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
