"""The choice of a backend, made once per model: the requested one, or the first of an order that supports the case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pavdm_cli.attention.backend import AttentionFn, Backend, Case, Machine
from pavdm_cli.attention.table import BACKENDS
from pavdm_cli.attention.torch_sdpa import attend
from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.validation import check_name

AUTO = "auto"
ORDERS = {  # by the major compute capability of an NVIDIA GPU; None: any other
    9: ("fa3", "cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math"),
    10: ("cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math"),
    None: ("sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math"),
}
Probe = Callable[[Backend], str | None]


@dataclass(frozen=True, slots=True)
class Attention:
    """The backend of a model, and the reason for it in one line."""

    name: str
    reason: str
    unmasked: AttentionFn
    fallback: AttentionFn  # for what the backend does not support: a mask, or too few keys
    fallback_name: str
    min_keys: int = 1  # calls with fewer go to the fallback

    @property
    def any_length(self) -> AttentionFn:
        """Attention without a mask over any number of keys; the fallback is chosen in each call."""
        if self.min_keys == 1:
            return self.unmasked
        return lambda q, k, v, mask: self.for_keys(k.shape[1], mask is not None)(q, k, v, mask)

    def for_keys(self, keys: int, has_mask: bool) -> AttentionFn:
        """Attention over this number of keys, with or without a mask."""
        return self.fallback if has_mask or keys < self.min_keys else self.unmasked


TORCH = Attention("sdpa", "torch's own choice of kernel", attend, attend, "sdpa")


def auto_order(machine: Machine) -> tuple[str, ...]:
    """The backends that `auto` tries on a machine, in order; none of them loses accuracy."""
    if machine.kind != "cuda":
        return ("sdpa",)
    return ORDERS.get(machine.capability[0], ORDERS[None])


def check_backend(name: str, machine: Machine) -> None:
    """Check that this machine and installation can run a backend, before any work.

    Raises: UsageError for an unknown name, DeviceError for an unusable backend.
    """
    if name != AUTO:
        backend = _backend(name)
        _reject(name, (backend.unfit_machine(machine), backend.probe()), machine)


def choose_backend(name: str, case: Case, probe: Probe = lambda backend: backend.probe()) -> Attention:
    """The backend of this name, or for `auto` the first that supports the case. Raises: UsageError, DeviceError."""
    if name == AUTO:
        backend, skip_reasons = _first_fit(auto_order(case.machine), case, probe)
        reason = "; ".join([f"the first that supports {case}", *skip_reasons])
    else:
        backend = _backend(name)
        _reject(name, (backend.unfit_case(case), probe(backend)), case.machine)
        reason = f"requested, on {case}"
    hardest = replace(case, masked=True, keys=1)
    fallback = backend
    if backend.unfit_case(hardest):
        fallback, _ = _first_fit(auto_order(case.machine), hardest, probe)
        reason += f"; {fallback.name} for a mask or a single key"
    min_keys = backend.limits[case.machine.kind].min_keys
    return Attention(backend.name, reason, backend.load(), fallback.load(), fallback.name, min_keys)


def _first_fit(names: Iterable[str], case: Case, probe: Probe) -> tuple[Backend, list[str]]:
    """The first usable backend, and why the ones before it are not; the last of every order supports every case."""
    skip_reasons: list[str] = []
    for name in names:
        reason = BACKENDS[name].unfit_case(case) or probe(BACKENDS[name])
        if reason is None:
            return BACKENDS[name], skip_reasons
        skip_reasons.append(f"{name} {reason}")
    raise AssertionError(f"no backend supports {case}")


def _backend(name: str) -> Backend:
    check_name("--attention", name, (AUTO, *BACKENDS))
    return BACKENDS[name]


def _reject(name: str, reasons: Iterable[str | None], machine: Machine) -> None:
    if stated_reasons := [reason for reason in reasons if reason]:
        raise DeviceError(
            f"--attention {name} cannot be used here: {'; '.join(stated_reasons)}",
            f"omit --attention: auto tries {', '.join(auto_order(machine))} here; `pavdm doctor` lists all",
        )
