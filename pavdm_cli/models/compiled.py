"""Blocks as graphs of torch.compile: one for all blocks of a kind, whatever the length of the window."""

from __future__ import annotations

import re
import sysconfig
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import DeviceError
from pavdm_cli.models.stdit.layers import Axis, Block, Frames
from pavdm_cli.models.stdit.transformer import RunBlock, as_written
from pavdm_cli.runtime.install_hints import install_command
from pavdm_kernels import ModulationVector, PerLevel
from pavdm_kernels.dispatch import TRITON_INSTALLED
from pavdm_kernels.modulation import Gathered

COMPILER = "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
Stream = tuple[Tensor, Tensor]  # as `Block.forward` takes it
NOTE = "the network is compiled once, while its first steps are made: up to a minute, and seconds the next time"


@cache
def compiled(backend: str = "inductor") -> RunBlock:
    """Blocks by a back end of torch.compile, one graph for those over space, one or two for those over time.

    The first calls compile. Raises: DeviceError where that fails.
    """
    met: set[Hashable] = set()
    with quiet():
        graph = torch.compile(as_written, backend=backend)

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
            raise DeviceError(f"--compile failed: {_reason(error)}", "leave it out; videos are the same") from None

    return run


def compiles() -> dict[str, float]:
    """Graphs that were compiled in this process so far, and the seconds that took."""
    if not compiled.cache_info().currsize:
        return {"graphs": 0, "seconds": 0.0}
    metrics = torch._dynamo.utils.get_compilation_metrics()
    return {"graphs": len(metrics), "seconds": sum(one.entire_frame_compile_time_s or 0.0 for one in metrics)}


def check_compile(wanted: bool, device: torch.device) -> None:
    """Raises: DeviceError where blocks are to be compiled and something that this takes is missing."""
    if wanted and (missing := lacking(device)):
        raise DeviceError(f"--compile needs {missing[0]}", missing[1])


def lacking(device: torch.device) -> tuple[str, str] | None:
    """What compiling for a device lacks, and how to come by it; None where it lacks nothing."""
    if device.type == "cuda":
        return None if TRITON_INSTALLED else ("Triton", install_command("gpu"))
    if device.type != "cpu":
        return "a CPU or CUDA", f"leave it out on {device.type}"
    if not has_compiler():
        return "a C++ compiler, and found none", COMPILER
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return None if headers.exists() else (f"Python's headers ({headers})", "Debian, Ubuntu: apt install python3-dev")


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler: `CXX`, else the system's usual one."""
    with quiet():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of torch's compiler about itself, which no user could heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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


def _reason(error: Exception) -> str:
    """What a compiler complained of first, or the first line."""
    said = str(error).strip() or type(error).__name__
    found = re.search(r"\berror: .+", said)
    return found[0] if found else said.splitlines()[0]
