"""What a backend is, and the case that it has to support."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# q (B, S, N, K), k and v (B, L, N, K), mask bool broadcast to (B, N, S, L) or None -> (B, S, N * K)
AttentionFn = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
DTYPE_NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where attention runs: a kind of device, with its compute capability if it is an NVIDIA GPU."""

    kind: str  # cpu, cuda, rocm or mps
    capability: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.kind} {_format_capability(self.capability)}" if self.kind == "cuda" else self.kind


@dataclass(frozen=True, slots=True)
class Case:
    """What a model needs from a backend."""

    machine: Machine
    dtype: torch.dtype
    head_dim: int
    masked: bool = False
    keys: int = 2  # the fewest in a call

    def __str__(self) -> str:
        return f"{self.machine}, {DTYPE_NAMES.get(self.dtype, self.dtype)}, heads of {self.head_dim}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend supports on one kind of device."""

    dtypes: tuple[torch.dtype, ...] = tuple(DTYPE_NAMES)
    min_capability: tuple[int, int] = (0, 0)
    max_capability: tuple[int, int] = (99, 9)
    max_width: int = 2**16  # of a head
    width_multiple: int = 1
    min_keys: int = 1
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of attention; `load` imports it, once, when a model is loaded."""

    name: str
    limits: Mapping[str, Limits]  # by kind of device
    load: Callable[[], AttentionFn]
    probe: Callable[[], str | None]  # why this installation cannot use it, with the command that installs it; or None

    def unfit_machine(self, machine: Machine) -> str | None:
        """Why the backend cannot run on a machine, or None if it can."""
        if machine.kind not in self.limits:
            return "needs an NVIDIA GPU" if tuple(self.limits) == ("cuda",) else f"does not run on {machine.kind}"
        limits = self.limits[machine.kind]
        if limits.min_capability <= machine.capability <= limits.max_capability:
            return None
        return f"needs compute capability {_range(limits)}, this is {_format_capability(machine.capability)}"

    def unfit_case(self, case: Case) -> str | None:
        """Why the backend cannot handle a case, or None if it can."""
        if reason := self.unfit_machine(case.machine):
            return reason
        limits = self.limits[case.machine.kind]
        if case.dtype not in limits.dtypes:
            names = " and ".join(DTYPE_NAMES[dtype] for dtype in limits.dtypes)
            return f"supports {names}, not {DTYPE_NAMES[case.dtype]}"
        if case.head_dim > limits.max_width:
            return f"supports heads of up to {limits.max_width}, not {case.head_dim}"
        if case.head_dim % limits.width_multiple:
            return f"supports heads of a multiple of {limits.width_multiple}, not {case.head_dim}"
        if case.masked and not limits.masks:
            return "supports no mask"
        return f"needs {limits.min_keys} keys or more" if case.keys < limits.min_keys else None


def machine_of(device: torch.device) -> Machine:
    """The machine behind a torch device."""
    if device.type != "cuda":
        return Machine(device.type)
    if torch.version.hip:
        return Machine("rocm")
    return Machine("cuda", torch.cuda.get_device_capability(device))


def _range(limits: Limits) -> str:
    return _format_capability(limits.min_capability) + (
        " and up" if limits.max_capability[0] > 90 else f" to {_format_capability(limits.max_capability)}"
    )


def _format_capability(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
