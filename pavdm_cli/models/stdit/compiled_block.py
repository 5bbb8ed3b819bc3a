"""Blocks compiled by torch.compile: one graph per kind of block, for any window length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.models.stdit.layers import AttentionAxis, Block, BlockInputs
from pavdm_cli.models.stdit.transformer import BlockFn, eager_block
from pavdm_cli.models.torch_compile import explain_compile_errors, ignore_warnings
from pavdm_kernels import ModulationVector, PerLevel
from pavdm_kernels.modulation import Gathered

ResidualStream = tuple[Tensor, Tensor]  # the residual stream and its modulated copy, arguments of `Block.forward`


@cache
def compile_block(backend: str = "inductor") -> BlockFn:
    """`eager_block` compiled by torch.compile: one graph for spatial blocks, and one or two for temporal ones.

    The first calls compile, and raise DeviceError if that fails.
    """
    seen_keys: set[Hashable] = set()
    with ignore_warnings():
        graph = torch.compile(eager_block, backend=backend)

    def run_block(
        block: Block,
        stream: ResidualStream,
        inputs: BlockInputs,
        text_kv: Tensor,
        axis: AttentionAxis,
        vectors: Sequence[ModulationVector],
    ) -> Any:
        vectors = _with_separate_rows(vectors)
        if (key := _graph_key(stream, axis, vectors)) not in seen_keys:
            _mark_dynamic(stream, inputs, axis, vectors)
            seen_keys.add(key)
        with explain_compile_errors():
            return graph(block, stream, inputs, text_kv, axis, vectors)

    return run_block


def _graph_key(stream: ResidualStream, axis: AttentionAxis, vectors: Sequence[ModulationVector]) -> Hashable:
    """Cache key: everything that changes the graph, plus the number of latents."""
    keywords = getattr(axis.attend, "keywords", {})
    return stream[0].shape[1], axis.rope is None, type(vectors[0]), *((n, v is None) for n, v in keywords.items())


def _mark_dynamic(
    stream: ResidualStream, inputs: BlockInputs, axis: AttentionAxis, vectors: Sequence[ModulationVector]
) -> None:
    """Mark the dimension of latents as dynamic in every input, so that one graph serves all lengths."""
    mark_dynamic = torch._dynamo.maybe_mark_dynamic
    for x in stream:
        mark_dynamic(x, 1)
    mark_dynamic(inputs.level_idx, inputs.level_idx.ndim - 1)
    if axis.rope is not None:
        mark_dynamic(axis.rope, 0)
    for tensor in (tensor for vector in vectors if isinstance(vector, Gathered) for tensor in vector):
        mark_dynamic(tensor, tensor.ndim - 3)


def _with_separate_rows(vectors: Sequence[ModulationVector]) -> Sequence[ModulationVector]:
    """Give the final layer's shift and scale the memory layout of the others, so that no separate graph is compiled."""
    *block_vectors, gate, shift, scale = vectors
    if not (isinstance(gate, PerLevel) and isinstance(shift, PerLevel) and isinstance(scale, PerLevel)):
        return vectors
    if shift.rows is not scale.rows:
        return vectors
    levels, width = gate.rows.shape
    count = gate.rows.stride(0) // width
    separate_rows = shift.rows.repeat(1, count).view(levels, count, width)
    return [*block_vectors, gate, PerLevel(separate_rows[:, 0], shift.bias), PerLevel(separate_rows[:, 1], scale.bias)]
