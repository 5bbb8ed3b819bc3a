"""Linear layers: the fast form is the equation, and stays out of the way where it may not stand in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pavdm_kernels import linear, references
from pavdm_kernels.jit import fused
from pavdm_kernels.linear import has_pointwise, launch, pointwise


def layer(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A strided input as a slice leaves it, weight and bias."""
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((2, 5, 40), (7, 33), (7,)))
    return x[:, 1:, :33], weight, bias


def ran(call) -> set[str]:
    """Names of the operations of a call."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:  # else torch 2.11 warns of cycles
        call()
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("gelu", [False, True])
def test_the_fast_form_is_the_equation(gelu: bool) -> None:
    x, weight, bias = layer()
    exact = F.linear(x.double(), weight.double(), bias.double())
    exact = F.gelu(exact, approximate="tanh") if gelu else exact
    with torch.no_grad():
        got = linear(x, weight, bias, gelu)
        assert got.shape == (2, 4, 7)
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=5e-6)
        torch.testing.assert_close(linear(x, weight, None), F.linear(x, weight), rtol=0, atol=5e-6)


@pytest.mark.skipif(not has_pointwise(), reason="torch has no oneDNN here")
def test_it_is_one_operation_for_inference_and_torchs_own_for_gradients_and_references() -> None:
    x, weight, bias = layer()
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" in ran(lambda: linear(x, weight, bias, True))
        with references():
            assert "aten::gelu" in ran(lambda: linear(x, weight, bias, True))
    assert "aten::gelu" in ran(lambda: linear(x, weight.requires_grad_(), bias, True))


@pytest.mark.skipif(not has_pointwise(), reason="torch has no oneDNN here")
def test_references_are_of_the_thread_that_asks_for_them() -> None:
    """What is decoded beside a step takes one form, whether the step is in the middle of its references or not."""

    def same() -> bool:
        with torch.no_grad():
            return torch.equal(linear(*layer(), True), pointwise(*layer(), True))

    with ThreadPoolExecutor(1) as beside, references():
        assert beside.submit(fused).result()
        assert beside.submit(same).result()
        assert not fused()
        with references():
            pass
        assert not fused()
    assert fused()


def test_gradients_flow_and_other_precisions_are_kept() -> None:
    x, weight, bias = layer(torch.float64)
    linear(x, weight.requires_grad_(), bias, True).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert linear(x, weight, bias).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(*layer()).dtype == torch.bfloat16
        assert linear(x[:0], weight, bias).shape == (0, 4, 7)


@pytest.mark.skipif(not has_pointwise(), reason="torch has no oneDNN here")
def test_what_a_compiler_sees_of_it_is_a_sound_operation() -> None:
    torch.library.opcheck(launch, (*layer(), True), test_utils=("test_schema", "test_faketensor"))
