"""Building modules without memory for their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def meta_init() -> Iterator[None]:
    """Modules built inside have meta tensors, without initial values, for which torch would import its compiler."""
    with torch.device("meta"), _SkipInit():
        yield


class _SkipInit(TorchFunctionMode):
    """Leaves tensors as they are in every function of `torch.nn.init`."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") != "torch.nn.init":
            return func(*args, **kwargs)
        return args[0] if args else kwargs["tensor"]
