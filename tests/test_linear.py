"""Linear layers: the fused form computes the same result, and is used only where possible."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pavdm_kernels import kernels_enabled, linear, use_reference
from pavdm_kernels.linear import ONEDNN_DTYPES, launch, onednn_linear, tanh_gelu


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
def test_use_reference_applies_to_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that decodes runs fused operations even while the sampler's thread runs references."""
    monkeypatch.setattr(sys.modules["pavdm_kernels.linear"], "FUSES_GELU", True)

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


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("dtypes", [ONEDNN_DTYPES, (torch.float32,), ()], ids=["this CPU", "without bf16", "none"])
@pytest.mark.parametrize("gelu", [False, True])
def test_every_cpu_computes_the_equation_in_both_dtypes(
    dtypes: tuple[torch.dtype, ...], gelu: bool, fuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["pavdm_kernels.linear"]  # `pavdm_kernels.linear` is its function
    monkeypatch.setattr(module, "ONEDNN_DTYPES", dtypes)
    monkeypatch.setattr(module, "FUSES_GELU", fuses)
    x, weight, bias = layer()
    for narrow, atol in ((weight, 5e-6), (weight.bfloat16(), 0.02)):
        narrow_x, narrow_bias = x.to(narrow.dtype), bias.to(narrow.dtype)
        exact = F.linear(narrow_x.double(), narrow.double(), narrow_bias.double())
        exact = F.gelu(exact, approximate="tanh") if gelu else exact
        with torch.no_grad():
            for given in (x, narrow_x):
                names = operations(partial(linear, given, narrow, narrow_bias, gelu))
                assert ("mkldnn::_linear_pointwise" in names) == bool(dtypes)
                result = linear(given, narrow, narrow_bias, gelu)
                assert result.dtype == given.dtype
                torch.testing.assert_close(result.double(), exact, rtol=atol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gelu_by_sigmoid_is_that_of_torch_everywhere(dtype: torch.dtype) -> None:
    y = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([-1e6, 1e6])]).to(dtype)
    exact = F.gelu(y.double(), approximate="tanh")
    torch.testing.assert_close(tanh_gelu(y).double(), exact, rtol=2e-6 if dtype == torch.float32 else 5e-3, atol=1e-7)
    assert tanh_gelu(y).dtype == dtype


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
