"""Memory of tensors, tracked operation by operation; also of meta tensors, which have sizes but no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pavdm_kernels.dispatch import fake_cuda
from pavdm_kernels.linear import FUSES_GELU


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations inside the block allocate, until they are freed.

    Earlier allocations are not counted, nor is memory that one operation allocates and frees.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            self._track(value, 0)
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            self._track(value, 1)
        return out

    def reset_peak(self) -> None:
        """Set the peak to the present value."""
        self.peak = self.now

    def peak_bytes(self, call: Callable[[], object]) -> int:
        """Peak bytes of a call, in addition to those allocated before it, including its result."""
        before = self.now
        self.reset_peak()
        call()
        return self.peak - before

    def _track(self, value: Any, factor: int) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if (address := storage._cdata) not in self._seen:
            self._seen.add(address)
            weakref.finalize(storage, self._free, address, factor * storage.nbytes()).atexit = False
            self.now += factor * storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _free(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self.now -= size


class FusedOps(TorchFunctionMode):
    """Attention without a tensor of scores, and GELU fused into the matmul before it if `gelu`, for meta tensors."""

    def __init__(self, gelu: bool) -> None:
        super().__init__()
        self.gelu = gelu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            q, v = args[0], args[2]
            return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)
        if self.gelu and func is F.gelu and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def emulate_device(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block, operations on meta tensors allocate what they would on a device."""
    with ExitStack() as stack:
        fuses_gelu = FUSES_GELU and device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
        stack.enter_context(FusedOps(gelu=fuses_gelu))
        if device.type == "cuda":
            stack.enter_context(fake_cuda())
        yield
