"""The choice of an attention back end: a pure function of the machine, the case, and what is installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pavdm_cli.attention import BACKENDS, TORCH, Backend, Case, Limits, Machine, choose, confirm, order
from pavdm_cli.errors import DeviceError, UsageError

CPU, HOPPER, AMPERE, ADA, BLACKWELL, TURING = (
    Machine("cpu"),
    *(Machine("cuda", capability) for capability in ((9, 0), (8, 0), (8, 9), (10, 0), (7, 5))),
)
ALL = frozenset(BACKENDS)
BARE = ALL - {"fa3", "flash-attn", "xformers"}


def only(installed: frozenset[str]):
    """The probe of a machine where nothing but these is installed."""
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
def bare(monkeypatch):
    """A table whose functions cannot run, so that choices are made for packages and GPUs that are not here."""
    for name, backend in BACKENDS.items():
        monkeypatch.setitem(BACKENDS, name, replace(backend, load=lambda name=name: name))


@pytest.mark.parametrize(("machine", "dtype", "width", "installed", "name", "rest"), CHOICES)
def test_the_first_that_fits_is_chosen(machine, dtype, width, installed, name, rest, bare):
    got = choose("auto", Case(machine, dtype, width), only(installed))
    assert (got.name, got.rest_name) == (name, rest)
    assert (got.plain, got.over(9, False)) == (name, name)
    assert got.over(9, True) == rest
    before = order(machine)[: order(machine).index(name)]
    assert all(f"{other} " in got.reason for other in before)
    assert str(Case(machine, dtype, width)) in got.reason


def test_a_text_of_a_single_word_goes_where_it_is_taken(bare):
    cudnn = choose("auto", Case(HOPPER, BF16, 72), only(BARE))
    assert [cudnn.over(keys, False) for keys in (1, 2)] == ["sdpa-efficient", "cudnn"]
    assert "sdpa-efficient for a mask or a single key" in cudnn.reason
    assert choose("auto", Case(HOPPER, BF16, 72), only(ALL)).over(1, False) == "fa3"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_name_is_taken_or_refused_but_never_replaced(name, bare):
    for machine, dtype, width, installed, *_ in CHOICES:
        case = Case(machine, dtype, width)
        if BACKENDS[name].supports(case) or name not in installed:
            with pytest.raises(DeviceError, match=f"--attention {name} cannot be used here"):
                choose(name, case, only(installed))
        else:
            got = choose(name, case, only(installed))
            assert (got.name, got.plain) == (name, name)


def test_a_mask_is_handed_on_by_name_too(bare):
    got = choose("sdpa-flash", Case(AMPERE, BF16, 72), only(ALL))
    assert (got.over(9, False), got.over(9, True)) == ("sdpa-flash", "sdpa-efficient")


@pytest.mark.parametrize(
    ("name", "case", "says"),
    [
        ("fa3", Case(CPU, FP32, 32), "needs an NVIDIA GPU"),
        ("fa3", Case(AMPERE, BF16, 72), "needs compute capability 9.0 to 9.9, this is 8.0"),
        ("sdpa-flash", Case(HOPPER, FP32, 72), "takes float16 and bfloat16, not float32"),
        ("cudnn", Case(HOPPER, BF16, 136), "up to 128, not 136"),
        ("flash-attn", Case(HOPPER, BF16, 10), "a multiple of 8, not 10"),
        ("flash-attn", Case(TURING, torch.float16, 64), "8.0 and up, this is 7.5"),
        ("xformers", Case(Machine("rocm"), BF16, 72), "needs an NVIDIA GPU"),
        ("sdpa-flash", Case(Machine("mps"), FP32, 72), "does not run on mps"),
    ],
)
def test_a_refusal_says_why(name, case, says):
    assert says in BACKENDS[name].supports(case)
    with pytest.raises(DeviceError) as refused:
        choose(name, case, only(ALL))
    assert says in refused.value.message
    assert order(case.machine)[0] in refused.value.hint


def test_a_name_that_is_none_lists_those_that_are():
    for call in (lambda: confirm("magic", CPU), lambda: choose("magic", Case(CPU, FP32, 32))):
        with pytest.raises(UsageError, match=r"auto, fa3, .*sdpa, got 'magic'"):
            call()
    assert confirm("auto", CPU) is confirm("sdpa-math", CPU) is None


def test_the_last_of_every_order_takes_everything():
    for machine in (CPU, HOPPER, AMPERE, ADA, BLACKWELL, TURING, Machine("rocm"), Machine("mps")):
        last = BACKENDS[order(machine)[-1]]
        assert last.supports(Case(machine, torch.float64, 7, masked=True, keys=1)) is None
        assert last.probe() is None


def test_a_cpu_asks_for_no_package_and_keeps_torch_as_it_was():
    def never(backend: Backend) -> str:
        assert backend.name == "sdpa"

    got = choose("auto", Case(CPU, FP32, 32), never)
    assert (got.plain, got.rest) == (TORCH.plain, TORCH.rest)


def test_every_row_is_a_name_with_limits():
    for name, backend in BACKENDS.items():
        assert backend.name == name
        assert all(isinstance(limits, Limits) for limits in backend.limits.values())
