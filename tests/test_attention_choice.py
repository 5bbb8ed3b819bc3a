"""The choice of an attention backend depends only on the machine, the case and what is installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pavdm_cli.attention import (
    BACKENDS,
    TORCH,
    Backend,
    Case,
    Limits,
    Machine,
    auto_order,
    check_backend,
    choose_backend,
)
from pavdm_cli.errors import DeviceError, UsageError

CPU, HOPPER, AMPERE, ADA, BLACKWELL, TURING = (
    Machine("cpu"),
    *(Machine("cuda", capability) for capability in ((9, 0), (8, 0), (8, 9), (10, 0), (7, 5))),
)
ALL = frozenset(BACKENDS)
BARE = ALL - {"fa3", "flash-attn", "xformers"}


def only(installed: frozenset[str]):
    """A probe of a machine with only these installed."""
    return lambda backend: None if backend.name in installed else "not installed: pip install it"


BF16, FP32 = torch.bfloat16, torch.float32
CHOICES = [
    (HOPPER, BF16, 72, ALL, "fa3", "sdpa-efficient"),
    (HOPPER, BF16, 72, BARE, "cudnn", "sdpa-efficient"),
    (HOPPER, BF16, 72, BARE - {"cudnn"}, "sdpa-flash", "sdpa-efficient"),
    (HOPPER, BF16, 256, BARE, "sdpa-flash", "sdpa-efficient"),
    (HOPPER, BF16, 512, ALL, "sdpa-efficient", "sdpa-efficient"),
    (HOPPER, BF16, 10, ALL, "sdpa-flash", "sdpa-math"),
    (HOPPER, FP32, 32, ALL, "sdpa-efficient", "sdpa-efficient"),
    (HOPPER, torch.float64, 32, ALL, "sdpa-math", "sdpa-math"),
    (AMPERE, BF16, 72, ALL, "sdpa-flash", "sdpa-efficient"),
    (AMPERE, BF16, 72, ALL - {"sdpa-flash"}, "flash-attn", "sdpa-efficient"),
    (AMPERE, BF16, 72, ALL - {"sdpa-flash", "flash-attn"}, "xformers", "sdpa-efficient"),
    (AMPERE, BF16, 72, BARE - {"sdpa-flash"}, "sdpa-efficient", "sdpa-efficient"),
    (ADA, FP32, 72, ALL, "xformers", "sdpa-efficient"),
    (ADA, FP32, 72, BARE, "sdpa-efficient", "sdpa-efficient"),
    (BLACKWELL, BF16, 72, ALL, "cudnn", "sdpa-efficient"),
    (TURING, BF16, 72, ALL, "sdpa-math", "sdpa-math"),
    (CPU, FP32, 32, ALL, "sdpa", "sdpa"),
    (CPU, BF16, 72, ALL, "sdpa", "sdpa"),
    (Machine("mps"), FP32, 32, ALL, "sdpa", "sdpa"),
    (Machine("rocm"), BF16, 72, ALL, "sdpa", "sdpa"),
]


@pytest.fixture
def names_only(monkeypatch):
    """A table of names instead of functions, to choose packages and GPUs that are not present."""
    for name, backend in BACKENDS.items():
        monkeypatch.setitem(BACKENDS, name, replace(backend, load=lambda name=name: name))


@pytest.mark.parametrize(("machine", "dtype", "width", "installed", "name", "fallback"), CHOICES)
def test_auto_chooses_the_first_that_fits(machine, dtype, width, installed, name, fallback, names_only):
    attention = choose_backend("auto", Case(machine, dtype, width), only(installed))
    assert (attention.name, attention.fallback_name) == (name, fallback)
    assert (attention.unmasked, attention.for_keys(9, False)) == (name, name)
    assert attention.for_keys(9, True) == fallback
    before = auto_order(machine)[: auto_order(machine).index(name)]
    assert all(f"{other} " in attention.reason for other in before)
    assert str(Case(machine, dtype, width)) in attention.reason


def test_a_single_key_goes_to_the_fallback(names_only):
    cudnn = choose_backend("auto", Case(HOPPER, BF16, 72), only(BARE))
    assert [cudnn.for_keys(keys, False) for keys in (1, 2)] == ["sdpa-efficient", "cudnn"]
    assert "sdpa-efficient for a mask or a single key" in cudnn.reason
    assert choose_backend("auto", Case(HOPPER, BF16, 72), only(ALL)).for_keys(1, False) == "fa3"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_named_backend_is_never_replaced(name, names_only):
    for machine, dtype, width, installed, *_ in CHOICES:
        case = Case(machine, dtype, width)
        if BACKENDS[name].unfit_case(case) or name not in installed:
            with pytest.raises(DeviceError, match=f"--attention {name} cannot be used here"):
                choose_backend(name, case, only(installed))
        else:
            attention = choose_backend(name, case, only(installed))
            assert (attention.name, attention.unmasked) == (name, name)


def test_a_named_backend_has_a_fallback_for_masks(names_only):
    attention = choose_backend("sdpa-flash", Case(AMPERE, BF16, 72), only(ALL))
    assert (attention.for_keys(9, False), attention.for_keys(9, True)) == ("sdpa-flash", "sdpa-efficient")


@pytest.mark.parametrize(
    ("name", "case", "message"),
    [
        ("fa3", Case(CPU, FP32, 32), "needs an NVIDIA GPU"),
        ("fa3", Case(AMPERE, BF16, 72), "needs compute capability 9.0 to 9.9, this is 8.0"),
        ("sdpa-flash", Case(HOPPER, FP32, 72), "supports float16 and bfloat16, not float32"),
        ("cudnn", Case(HOPPER, BF16, 136), "up to 128, not 136"),
        ("flash-attn", Case(HOPPER, BF16, 10), "a multiple of 8, not 10"),
        ("flash-attn", Case(TURING, torch.float16, 64), "8.0 and up, this is 7.5"),
        ("xformers", Case(Machine("rocm"), BF16, 72), "needs an NVIDIA GPU"),
        ("sdpa-flash", Case(Machine("mps"), FP32, 72), "does not run on mps"),
    ],
)
def test_a_refusal_gives_the_reason(name, case, message):
    assert message in BACKENDS[name].unfit_case(case)
    with pytest.raises(DeviceError) as excinfo:
        choose_backend(name, case, only(ALL))
    assert message in excinfo.value.message
    assert auto_order(case.machine)[0] in excinfo.value.hint


def test_an_unknown_name_lists_the_valid_ones():
    for call in (lambda: check_backend("magic", CPU), lambda: choose_backend("magic", Case(CPU, FP32, 32))):
        with pytest.raises(UsageError, match=r"auto, fa3, .*sdpa, got 'magic'"):
            call()
    assert check_backend("auto", CPU) is check_backend("sdpa-math", CPU) is None


def test_the_last_of_every_order_supports_everything():
    for machine in (CPU, HOPPER, AMPERE, ADA, BLACKWELL, TURING, Machine("rocm"), Machine("mps")):
        last = BACKENDS[auto_order(machine)[-1]]
        assert last.unfit_case(Case(machine, torch.float64, 7, masked=True, keys=1)) is None
        assert last.probe() is None


def test_a_cpu_probes_no_package():
    def never(backend: Backend) -> str:
        assert backend.name == "sdpa"

    attention = choose_backend("auto", Case(CPU, FP32, 32), never)
    assert (attention.unmasked, attention.fallback) == (TORCH.unmasked, TORCH.fallback)


def test_every_row_is_a_name_with_limits():
    for name, backend in BACKENDS.items():
        assert backend.name == name
        assert all(isinstance(limits, Limits) for limits in backend.limits.values())
