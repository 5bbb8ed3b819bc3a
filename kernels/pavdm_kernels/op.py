"""The record of an operation: all that a test, the compile gate and a benchmark need to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pavdm_kernels.jit import Call

Sizes = Mapping[str, int]
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class Draw:
    """Makes random inputs of one dtype on one device; on "meta" they have no data."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> None:
        self.dtype = dtype
        self.device = device
        self.generator = torch.Generator("cpu" if device == "meta" else device).manual_seed(seed)

    @property
    def source(self) -> dict[str, Any]:
        """Where random numbers come from: the device itself, since a host takes seconds for the largest inputs."""
        return {"generator": self.generator, "device": self.generator.device}

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        if self.device == "meta":
            return torch.empty(shape, dtype=self.dtype, device="meta")
        return torch.randn(shape, **self.source).to(self.dtype)

    def levels(self, sizes: Sizes, rows: int) -> Tensor:  # (T,), or (B, T) where a case says per_sample
        """Row numbers, int32, in no order."""
        shape = (sizes["B"], sizes["T"]) if sizes.get("per_sample") else (sizes["T"],)
        drawn = torch.randint(rows, shape, dtype=torch.int32, **self.source)
        return drawn.to(self.device)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation; `launch` always runs the kernel and is a torch custom op with the arguments of `call`."""

    name: str
    function: Callable[..., Any]  # what models call
    reference: Callable[..., Any]
    launch: Any  # a torch.library.CustomOpDef
    call: Callable[..., tuple[Call, Any]]  # what would be launched, and the outputs it would fill
    make: Callable[[Sizes, Draw], tuple[Any, ...]]  # arguments of the reference
    cases: tuple[Sizes, ...]  # for the interpreter: few programs, odd sizes
    real: tuple[Sizes, ...]  # sizes of real models: what is built, and measured on a GPU
    tolerances: Mapping[torch.dtype, float]  # largest error against float64, as a share of the largest value
    flat: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments  # reference's arguments to those of `launch`
    registers: int = 128  # a thread may take
    wide: bool = True  # reads enough to read 16 bytes at once
    scalars: int = 1  # loads of single numbers: exactly as many are narrower than 16 bytes a thread, and no store is
    products: bool = False  # multiplies matrices

    def bytes_moved(self, sizes: Sizes, dtype: torch.dtype) -> int:
        """What has to be read once and written once: inputs and outputs."""
        arguments = self.make(sizes, Draw(dtype, "meta"))
        _, outputs = self.call(*self.flat(*arguments))
        return sum(x.numel() * x.element_size() for x in tree_leaves((arguments, outputs)) if isinstance(x, Tensor))
