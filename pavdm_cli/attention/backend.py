"""What a back end is, and what it is asked for: values, no choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# q (B, S, N, K), k and v (B, L, N, K), mask bool broadcast to (B, N, S, L) or None -> (B, S, N * K)
Run = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
KINDS = ("cpu", "cuda", "rocm", "mps")
NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where attention runs: the kind of device, and an NVIDIA GPU's compute capability."""

    kind: str
    capability: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.kind} {self.capability[0]}.{self.capability[1]}" if self.kind == "cuda" else self.kind


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of a back end."""

    machine: Machine
    dtype: torch.dtype
    width: int  # of a head
    masked: bool = False
    keys: int = 2  # the fewest in a call

    def __str__(self) -> str:
        return f"{self.machine}, {NAMES.get(self.dtype, self.dtype)}, heads of {self.width}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a back end takes on one kind of device."""

    dtypes: tuple[torch.dtype, ...] = tuple(NAMES)
    least: tuple[int, int] = (0, 0)  # compute capability
    most: tuple[int, int] = (99, 9)
    widest: int = 2**16  # of a head
    multiple: int = 1  # that a head's width must be of
    keys: int = 1  # the fewest
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run attention; `load` gives the function, imported once when a model is loaded."""

    name: str
    limits: Mapping[str, Limits]  # of every kind of device it runs on
    load: Callable[[], Run]
    probe: Callable[[], str | None]  # why it is not usable in this installation, with the line that installs it

    def fits(self, machine: Machine) -> str | None:
        """Why it cannot run on a machine, or None."""
        if machine.kind not in self.limits:
            return "needs an NVIDIA GPU" if tuple(self.limits) == ("cuda",) else f"does not run on {machine.kind}"
        limits = self.limits[machine.kind]
        if limits.least <= machine.capability <= limits.most:
            return None
        return f"needs compute capability {_range(limits)}, this is {_dotted(machine.capability)}"

    def supports(self, case: Case) -> str | None:
        """Why it cannot do what is asked, or None."""
        if reason := self.fits(case.machine):
            return reason
        limits = self.limits[case.machine.kind]
        if case.dtype not in limits.dtypes:
            return f"takes {' and '.join(NAMES[dtype] for dtype in limits.dtypes)}, not {NAMES[case.dtype]}"
        if case.width > limits.widest or case.width % limits.multiple:
            fit = f"up to {limits.widest}" if case.width > limits.widest else f"a multiple of {limits.multiple}"
            return f"takes heads of {fit}, not {case.width}"
        if case.masked and not limits.masks:
            return "takes no mask"
        return f"takes {limits.keys} keys or more" if case.keys < limits.keys else None


def machine_of(device: torch.device) -> Machine:
    """The machine behind a device."""
    if device.type != "cuda":
        return Machine(device.type)
    if torch.version.hip:
        return Machine("rocm")
    return Machine("cuda", torch.cuda.get_device_capability(device))


def _range(limits: Limits) -> str:
    return _dotted(limits.least) + (" and up" if limits.most[0] > 90 else f" to {_dotted(limits.most)}")


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
