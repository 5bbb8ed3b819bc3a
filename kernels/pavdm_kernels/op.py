"""The record of an operation: what tests, the compile check and the benchmark need to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pavdm_kernels.launch import KernelLaunch

Sizes = Mapping[str, int]
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class RandomInputs:
    """Random tensors of one dtype on one device; on "meta" they have no data."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> None:
        self.dtype = dtype
        self.device = device
        self.generator = torch.Generator("cpu" if device == "meta" else device).manual_seed(seed)

    @property
    def source(self) -> dict[str, Any]:
        """Keywords of torch's random functions, which draw on the device: a CPU takes seconds for large inputs."""
        return {"generator": self.generator, "device": self.generator.device}

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        if self.device == "meta":
            return torch.empty(shape, dtype=self.dtype, device="meta")
        return torch.randn(shape, **self.source).to(self.dtype)

    def levels(self, sizes: Sizes, count: int) -> Tensor:  # (T,), or (B, T) with per_sample
        """Random levels below `count`, int32."""
        shape = (sizes["B"], sizes["T"]) if sizes.get("per_sample") else (sizes["T"],)
        return torch.randint(count, shape, dtype=torch.int32, **self.source).to(self.device)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation; `launch`, `outputs` and `prepare_launch` take the same arguments."""

    name: str
    function: Callable[..., Any]  # what models call
    reference: Callable[..., Any]
    launch: Any  # a torch.library.CustomOpDef that always runs the kernel
    outputs: Callable[..., Any]  # empty outputs, without Triton
    prepare_launch: Callable[..., tuple[KernelLaunch, Any]]  # the launch, and the outputs that it fills
    make_inputs: Callable[[Sizes, RandomInputs], tuple[Any, ...]]  # arguments of `function` and `reference`
    test_sizes: tuple[Sizes, ...]  # for the interpreter: few programs, odd sizes
    model_sizes: tuple[Sizes, ...]  # of real models: compiled, and measured on a GPU
    tolerances: Mapping[torch.dtype, float]  # largest error against float64, relative to the largest value
    launch_arguments: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments  # from those of `function`
    max_registers: int = 128  # per thread
    vectorized: bool = True  # loads at least 16 bytes per thread somewhere
    scalar_loads: int = 1  # number of loads below 16 bytes per thread; no store may be
    matmul: bool = False  # uses matrix instructions in 16-bit dtypes

    def bytes_moved(self, sizes: Sizes, dtype: torch.dtype) -> int:
        """Bytes of all inputs and outputs: each is read or written at least once."""
        arguments = self.make_inputs(sizes, RandomInputs(dtype, "meta"))
        tensors = tree_leaves((arguments, self.outputs(*self.launch_arguments(*arguments))))
        return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))
