"""Caches of tensors that depend only on sizes."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor

TensorCache = Callable[[Hashable, Callable[[], Tensor]], Tensor]  # (key, factory) -> tensor


def no_cache(key: Hashable, factory: Callable[[], Tensor]) -> Tensor:
    """Builds the tensor at every call."""
    return factory()


def tensor_cache() -> TensorCache:
    """A cache for size-dependent tensors (position embeddings), so that steps need not recompute them."""
    tensors: dict[Hashable, Tensor] = {}

    def get_tensor(key: Hashable, factory: Callable[[], Tensor]) -> Tensor:
        if key not in tensors:
            tensors[key] = factory()
        return tensors[key]

    return get_tensor
