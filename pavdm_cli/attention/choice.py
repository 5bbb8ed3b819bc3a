"""Which back end runs attention: what was asked for, or the first of an order that fits; decided once a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pavdm_cli.attention.backend import Backend, Case, Machine, Run
from pavdm_cli.attention.table import BACKENDS
from pavdm_cli.attention.torch_sdpa import attend
from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.validation import check_name

AUTO = "auto"
ORDERS = {  # by the first digit of an NVIDIA GPU's compute capability; last, the rule for all others
    9: ("fa3", "cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math"),
    10: ("cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math"),
    None: ("sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math"),
}
Missing = Callable[[Backend], str | None]


@dataclass(frozen=True, slots=True)
class Attention:
    """The back end of a model, and the reason for it, in one line."""

    name: str
    reason: str
    plain: Run
    rest: Run  # for what the back end cannot do: a mask, a single key
    rest_name: str
    keys: int = 1  # fewer go to the rest

    @property
    def by_length(self) -> Run:
        """What runs it without a mask over as many keys as there are in each call."""
        if self.keys == 1:
            return self.plain
        return lambda q, k, v, mask: self.over(k.shape[1], mask is not None)(q, k, v, mask)

    def over(self, keys: int, masked: bool) -> Run:
        """What runs attention over so many keys, under a mask or none."""
        return self.rest if masked or keys < self.keys else self.plain


TORCH = Attention("sdpa", "torch's own choice of kernel", attend, attend, "sdpa")


def order(machine: Machine) -> tuple[str, ...]:
    """The back ends that are tried on a machine, first to last; those that lose accuracy are never among them."""
    if machine.kind != "cuda":
        return ("sdpa",)
    return ORDERS.get(machine.capability[0], ORDERS[None])


def confirm(wanted: str, machine: Machine) -> None:
    """Refuse a name that this machine and installation cannot run, before any work. Raises: UsageError, DeviceError."""
    if wanted != AUTO:
        backend = _find(wanted)
        _refuse(wanted, (backend.fits(machine), backend.probe()), machine)


def choose(wanted: str, case: Case, missing: Missing = lambda backend: backend.probe()) -> Attention:
    """The back end that was named, or the first that fits. Raises: UsageError, DeviceError."""
    if wanted == AUTO:
        backend, passed = _first(order(case.machine), case, missing)
        reason = "; ".join([f"the first that fits {case}", *passed])
    else:
        backend = _find(wanted)
        _refuse(wanted, (backend.supports(case), missing(backend)), case.machine)
        reason = f"asked for, on {case}"
    hard = replace(case, masked=True, keys=1)
    rest = backend
    if backend.supports(hard):
        rest, _ = _first(order(case.machine), hard, missing)
        reason += f"; {rest.name} for a mask or a single key"
    keys = backend.limits[case.machine.kind].keys
    return Attention(backend.name, reason, backend.load(), rest.load(), rest.name, keys)


def _first(names: Iterable[str], case: Case, missing: Missing) -> tuple[Backend, list[str]]:
    """The first that fits, and why those before it do not; the last of every order fits all."""
    passed: list[str] = []
    for name in names:
        reason = BACKENDS[name].supports(case) or missing(BACKENDS[name])
        if reason is None:
            return BACKENDS[name], passed
        passed.append(f"{name} {reason}")
    raise AssertionError(f"nothing fits {case}")


def _find(name: str) -> Backend:
    check_name("--attention", name, (AUTO, *BACKENDS))
    return BACKENDS[name]


def _refuse(name: str, reasons: Iterable[str | None], machine: Machine) -> None:
    if found := [reason for reason in reasons if reason]:
        raise DeviceError(
            f"--attention {name} cannot be used here: {'; '.join(found)}",
            f"leave it out: auto tries {', '.join(order(machine))} here; `pavdm doctor` lists all",
        )
