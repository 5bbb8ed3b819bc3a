"""Linear layers: the fused form computes the same result, and is used only where possible."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pavdm_kernels import kernels_enabled, linear, use_reference
from pavdm_kernels.linear import ONEDNN_DTYPES, launch, onednn_linear


def layer(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A non-contiguous input, weight and bias."""
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((2, 5, 40), (7, 33), (7,)))
    return x[:, 1:, :33], weight, bias


def operations(call) -> set[str]:
    """Names of the operations that a call runs."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:  # else torch 2.11 warns of cycles
        call()
    return {event.key for event in profiler.key_averages()}


@pytest.mark.parametrize("gelu", [False, True])
def test_the_fused_form_computes_the_equation(gelu: bool) -> None:
    x, weight, bias = layer()
    exact = F.linear(x.double(), weight.double(), bias.double())
    exact = F.gelu(exact, approximate="tanh") if gelu else exact
    with torch.no_grad():
        result = linear(x, weight, bias, gelu)
        assert result.shape == (2, 4, 7)
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=5e-6)
        torch.testing.assert_close(linear(x, weight, None), F.linear(x, weight), rtol=0, atol=5e-6)


@pytest.mark.skipif(not ONEDNN_DTYPES, reason="torch has no oneDNN here")
def test_it_is_fused_for_inference_only() -> None:
    x, weight, bias = layer()
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" in operations(lambda: linear(x, weight, bias, True))
        with use_reference():
            assert "aten::gelu" in operations(lambda: linear(x, weight, bias, True))
    assert "aten::gelu" in operations(lambda: linear(x, weight.requires_grad_(), bias, True))


@pytest.mark.skipif(not ONEDNN_DTYPES, reason="torch has no oneDNN here")
def test_use_reference_applies_to_its_own_thread() -> None:
    """A thread that decodes runs fused operations even while the sampler's thread runs references."""

    def same() -> bool:
        with torch.no_grad():
            return torch.equal(linear(*layer(), True), onednn_linear(*layer(), True))

    with ThreadPoolExecutor(1) as thread, use_reference():
        assert thread.submit(kernels_enabled).result()
        assert thread.submit(same).result()
        assert not kernels_enabled()
        with use_reference():
            pass
        assert not kernels_enabled()
    assert kernels_enabled()


@pytest.mark.parametrize("dtypes", [ONEDNN_DTYPES, (torch.float32,), ()], ids=["this CPU", "without bf16", "none"])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_dtype_that_the_cpu_does_not_support_is_computed_by_torch(
    dtypes: tuple[torch.dtype, ...], gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["pavdm_kernels.linear"], "ONEDNN_DTYPES", dtypes)  # `linear` is its function
    x, weight, bias = layer()
    narrow, narrow_bias = weight.bfloat16(), bias.bfloat16()
    exact = F.linear(x.bfloat16().double(), narrow.double(), narrow_bias.double())
    exact = F.gelu(exact, approximate="tanh") if gelu else exact
    with torch.no_grad():
        names = operations(lambda: linear(x, narrow, narrow_bias, gelu))
        assert ("mkldnn::_linear_pointwise" in names) == (torch.bfloat16 in dtypes)
        for given in (x, x.bfloat16()):
            result = linear(given, narrow, narrow_bias, gelu)
            assert result.dtype == given.dtype
            torch.testing.assert_close(result.double(), exact, rtol=0.02, atol=0.02)


def test_gradients_flow_and_other_dtypes_are_kept() -> None:
    x, weight, bias = layer(torch.float64)
    linear(x, weight.requires_grad_(), bias, True).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert linear(x, weight, bias).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(*layer()).dtype == torch.bfloat16
        assert linear(x[:0], weight, bias).shape == (0, 4, 7)


@pytest.mark.skipif(not ONEDNN_DTYPES, reason="torch has no oneDNN here")
def test_the_custom_operation_passes_opcheck() -> None:
    torch.library.opcheck(launch, (*layer(), True), test_utils=("test_schema", "test_faketensor"))
