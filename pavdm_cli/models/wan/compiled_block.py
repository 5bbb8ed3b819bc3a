"""Blocks compiled by torch.compile: one graph for any window length, and a second with cached keys and values."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache

import torch
from torch import Tensor

from pavdm_cli.models.torch_compile import explain_compile_errors, ignore_warnings
from pavdm_cli.models.wan.layers import Block, BlockFn, BlockInputs, KeysValues, eager_block


@cache
def compile_block(backend: str = "inductor") -> BlockFn:
    """`eager_block` compiled by torch.compile. The first calls compile, and raise DeviceError if that fails."""
    seen_keys: set[Hashable] = set()
    with ignore_warnings():
        graph = torch.compile(eager_block, backend=backend)

    def run_block(
        block: Block, x: Tensor, inputs: BlockInputs, text_kv: KeysValues, kv_cache: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        x = x if x._base is None else x.clone()  # a view would be compiled once more than other tensors
        key = (x.shape[:3], kv_cache and kv_cache[0].shape[1])
        if key not in seen_keys:
            _mark_dynamic(x, inputs, kv_cache)
            seen_keys.add(key)
        with explain_compile_errors():
            return graph(block, x, inputs, text_kv, kv_cache)

    return run_block


def _mark_dynamic(x: Tensor, inputs: BlockInputs, kv_cache: KeysValues | None) -> None:
    """Mark the dimensions that depend on the number of latents, so that one graph serves all lengths."""
    mark = torch._dynamo.maybe_mark_dynamic
    mark(x, 1)
    mark(inputs.level_idx, inputs.level_idx.ndim - 1)
    mark(inputs.rope, 0)
    for tensor in kv_cache or ():
        mark(tensor, 1)
