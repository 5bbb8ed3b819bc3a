"""Memory that tensors take, followed operation by operation: of real ones, or of ones without contents (meta)."""

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


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storage that operations in the block allocate, till it is freed.

    What was there before is not counted, nor what an operation uses and frees inside itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            self._meet(given, 0)
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            self._meet(made, 1)
        return out

    def forget_peak(self) -> None:
        """Let the peak be what there is now."""
        self.peak = self.now

    def _meet(self, value: Any, counted: int) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if (place := storage._cdata) not in self._seen:
            self._seen.add(place)
            weakref.finalize(storage, self._leave, place, counted * storage.nbytes()).atexit = False
            self.now += counted * storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _leave(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


class Standing(TorchFunctionMode):
    """Attention, and a GELU after a product, as memory sees them where they are one operation: no scores are stored."""

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
def standing_for(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block tensors without contents are handled like those of a device, as far as memory goes."""
    with ExitStack() as stack:
        stack.enter_context(Standing(gelu=device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)))
        if device.type == "cuda":
            stack.enter_context(fake_cuda())
        yield


def peak_of(live: Live, call: Callable[[], object]) -> int:
    """The most bytes that a call holds beyond what there was before it, its result included."""
    before = live.now
    live.forget_peak()
    call()
    return live.peak - before
