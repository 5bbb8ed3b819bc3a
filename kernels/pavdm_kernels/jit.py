"""Triton behind one door: it is imported when the first kernel runs or is built, and never by a run on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INSTALLED = find_spec("triton") is not None  # a constant: torch.compile cannot trace the search for a package
STAGES = 1  # no loop is unrolled into copies: those that matter load ahead themselves


class Jit:
    """A kernel, or a device function that kernels call; in its body `tl` is `triton.language`."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """Written in the bodies of kernels only, where Triton reads it."""
        raise TypeError(f"{self.function.__name__} runs inside a kernel")

    @cached_property
    def built(self) -> Any:
        """The function as Triton sees it: with names of its own, so that its module need not import Triton."""
        import triton
        import triton.language

        plain = self.function
        called = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
        device = {name: value.built for name, value in called.items() if isinstance(value, Jit)}
        known = {**plain.__globals__, "tl": triton.language, **device}
        copy = FunctionType(plain.__code__, known, plain.__name__, plain.__defaults__, plain.__closure__)
        copy.__annotations__, copy.__doc__ = plain.__annotations__, plain.__doc__
        return triton.jit(copy)


def jit(function: Callable[..., Any]) -> Jit:
    """Marks a function in Triton's language."""
    assert isinstance(function, FunctionType)
    return Jit(function)


class Call(NamedTuple):
    """One launch: all that the kernel is given, in the order of its parameters; it can be built without being run."""

    kernel: Jit
    programs: tuple[int, ...]
    arguments: dict[str, Tensor | int | float | None]
    warps: int

    def run(self) -> None:
        """Launches on the device of the first tensor; on a CPU that needs Triton's interpreter."""
        first = next(value for value in self.arguments.values() if isinstance(value, Tensor))
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            self.kernel.built[self.programs](**self.arguments, num_warps=self.warps, num_stages=STAGES)


def runs_kernel(x: Tensor) -> bool:
    """Whether an operation on x is its kernel: on CUDA, in a dtype kernels know, no gradients, not switched off."""
    return on_gpu(x) and not torch.is_grad_enabled() and x.dtype in DTYPES and installed() and fused()


def on_gpu(x: Tensor) -> bool:
    """Whether x lies on a GPU, or stands for a tensor there (`imagined`)."""
    return x.is_cuda or (x.is_meta and Switch.imagined)


class Switch:
    """How many `references()` blocks are open, for code that torch.compile traces: a plain attribute of all threads.

    It cannot read a ContextVar, and would read a thread's own value without a guard: one graph would stand for all.
    """

    depth = 0
    imagined = False  # tensors without contents stand for tensors on a GPU


class Here(threading.local):
    """The same of the thread that asks: what is decoded beside a step is not the step's."""

    depth = 0


HERE = Here()


@contextmanager
def references() -> Iterator[None]:
    """Inside the block every operation of this thread is its reference in plain torch, wherever it runs."""
    Switch.depth += 1
    HERE.depth += 1
    try:
        yield
    finally:
        Switch.depth -= 1
        HERE.depth -= 1


@contextmanager
def imagined() -> Iterator[None]:
    """Inside the block tensors without contents (meta) take the way of kernels, which allocate and do nothing else."""
    before, Switch.imagined = Switch.imagined, True
    try:
        yield
    finally:
        Switch.imagined = before


def fused() -> bool:
    """Whether operations may take their fast form."""
    return (Switch.depth if torch.compiler.is_compiling() else HERE.depth) == 0


def installed() -> bool:
    """Whether Triton can be imported; PyTorch has none for CPUs, macOS and some of Windows."""
    return INSTALLED


def split(width: int, narrow: int = 512) -> tuple[int, int]:
    """Two powers of two that hold a width: 1152 is 1024 + 128, 1872 is 1024 + 1024, 72 is 64 + 8.

    A block has a power of two of columns: one for 1152 would be 2048 wide and nearly half empty. A narrow width, or one
    that is a power of two, is in the first alone.
    """
    ceiling = 1 << (width - 1).bit_length()
    if width < narrow or width == ceiling:
        return ceiling, 1
    return ceiling // 2, 1 << (width - ceiling // 2 - 1).bit_length()
