"""Blocks as graphs of torch.compile: one for all blocks of a kind, whatever the length of the window."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import DeviceError
from pavdm_cli.models.compiled import failure_reason, quiet
from pavdm_cli.models.stdit.layers import Axis, Block, Frames
from pavdm_cli.models.stdit.transformer import BlockFn, eager_block
from pavdm_kernels import ModulationVector, PerLevel
from pavdm_kernels.modulation import Gathered

Stream = tuple[Tensor, Tensor]  # as `Block.forward` takes it


@cache
def compiled(backend: str = "inductor") -> BlockFn:
    """Blocks by a back end of torch.compile, one graph for those over space, one or two for those over time.

    The first calls compile. Raises: DeviceError where that fails.
    """
    met: set[Hashable] = set()
    with quiet():
        graph = torch.compile(eager_block, backend=backend)

    def run(
        block: Block, stream: Stream, frames: Frames, text: Tensor, axis: Axis, vectors: Sequence[ModulationVector]
    ) -> Any:
        vectors = _apart(vectors)
        if (kind := _kind(stream, axis, vectors)) not in met:
            _any_length(stream, frames, axis, vectors)
            met.add(kind)
        try:
            return graph(block, stream, frames, text, axis, vectors)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise DeviceError(
                f"--compile failed: {failure_reason(error)}", "leave it out; videos are the same"
            ) from None

    return run


def _kind(stream: Stream, axis: Axis, vectors: Sequence[ModulationVector]) -> Hashable:
    """What tells graphs apart, and the number of latents."""
    given = getattr(axis.attend, "keywords", {})
    return stream[0].shape[1], axis.rope is None, type(vectors[0]), *((n, v is None) for n, v in given.items())


def _any_length(stream: Stream, frames: Frames, axis: Axis, vectors: Sequence[ModulationVector]) -> None:
    """Marks where the number of latents stands: a graph then holds for all of them from the first on."""
    mark = torch._dynamo.maybe_mark_dynamic
    for x in stream:
        mark(x, 1)
    mark(frames.level_idx, frames.level_idx.ndim - 1)
    if axis.rope is not None:
        mark(axis.rope, 0)
    for tensor in (tensor for vector in vectors if isinstance(vector, Gathered) for tensor in vector):
        mark(tensor, tensor.ndim - 3)


def _apart(vectors: Sequence[ModulationVector]) -> Sequence[ModulationVector]:
    """The final layer's shift and scale share their rows; laid out like all others, they need no graph of their own."""
    *most, gate, shift, scale = vectors
    if not (isinstance(gate, PerLevel) and isinstance(shift, PerLevel) and isinstance(scale, PerLevel)):
        return vectors
    if shift.rows is not scale.rows:
        return vectors
    levels, width = gate.rows.shape
    places = gate.rows.stride(0) // width
    wide = shift.rows.repeat(1, places).view(levels, places, width)
    return [*most, gate, PerLevel(wide[:, 0], shift.bias), PerLevel(wide[:, 1], scale.bias)]
