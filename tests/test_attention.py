"""Every attention backend computes the reference result, and states its requirements."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from pavdm_cli.attention import BACKENDS, Case, Machine, machine_of, packages, torch_sdpa
from pavdm_cli.runtime.install_hints import install_command

CPU = Machine("cpu")
B, S, L, N, K = 2, 7, 5, 3, 10


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The equation in float64, one head of one batch at a time."""
    q, k, v = (x.double() for x in (q, k, v))
    out = torch.empty_like(q)
    mask = torch.ones(1, dtype=torch.bool, device=q.device) if mask is None else mask
    allowed = mask.expand(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            scores = q[b, :, n] @ k[b, :, n].T / math.sqrt(q.shape[-1])
            scores[~allowed[b, n]] = -math.inf
            out[b, :, n] = scores.softmax(-1) @ v[b, :, n]
    return out.flatten(2)


def values(dtype: torch.dtype, keys: int = L) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values; the last two are halves of one projection, as in the models."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(B, S, N, K, generator=generator)
    k, v = torch.randn(B, keys, 2, N, K, generator=generator).to(dtype).unbind(2)
    return q.to(dtype), k, v


MASKS = {
    "none": None,
    "words": torch.tensor([[True, True, False, True, False], [True] * 5]).view(B, 1, 1, L),
    "pairs": torch.rand(B, N, S, L, generator=torch.Generator().manual_seed(2)) > 0.4,
}
MASKS["pairs"][..., 0] = True
ON_CPU = [name for name, backend in BACKENDS.items() if backend.unfit_machine(CPU) is None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ON_CPU)
def test_every_cpu_backend_computes_the_equation(name, mask, dtype):
    qkv = values(dtype)
    out = BACKENDS[name].load()(*qkv, MASKS[mask])
    assert out.dtype == dtype
    assert out.shape == (B, S, N * K)
    torch.testing.assert_close(
        out.double(), reference(*qkv, MASKS[mask]), rtol=0, atol={2: 2e-2, 4: 2e-6, 8: 1e-12}[dtype.itemsize]
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 72), (torch.float16, 32), (torch.float32, 32)])
@pytest.mark.parametrize("name", BACKENDS)
def test_every_gpu_backend_computes_the_equation(name, dtype, width):
    case = Case(machine_of(torch.device("cuda")), dtype, width)
    if reason := BACKENDS[name].unfit_case(case) or BACKENDS[name].probe():
        pytest.skip(f"{name} {reason}")
    q = torch.randn(2, 405, N, width, device="cuda", dtype=dtype)
    k, v = torch.randn(2, 300, 2, N, width, device="cuda", dtype=dtype).unbind(2)
    out = BACKENDS[name].load()(q, k, v, None)
    torch.testing.assert_close(out.double(), reference(q, k, v), rtol=0, atol={2: 2e-2, 4: 1e-4}[dtype.itemsize])


def test_a_single_key_is_its_value():
    q, k, v = values(torch.float32, keys=1)
    for name in ON_CPU:
        torch.testing.assert_close(BACKENDS[name].load()(q, k, v, None), v.expand(B, S, N, K).flatten(2))


def test_a_cpu_has_three_backends():
    assert ON_CPU == ["sdpa-flash", "sdpa-math", "sdpa"]
    assert machine_of(torch.device("cpu")) == CPU


class FakeAttention(list):
    """Replaces a package's function: records the call and computes the equation."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: float) -> Tensor:
        self.append((tuple(q.shape), tuple(k.shape), options))
        (scale,) = options.values()
        return reference(q * scale * math.sqrt(K), k, v).view(q.shape).to(q.dtype)


def install_fake(monkeypatch, name: str, **functions: object) -> None:
    """Let a module be importable for one test."""
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


PACKAGES = {
    "flash-attn": ("flash_attn", "flash_attn_func", "softmax_scale"),
    "xformers": ("xformers.ops", "memory_efficient_attention", "scale"),
    "fa3": ("flash_attn_interface", "flash_attn_func", "softmax_scale"),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_gets_tokens_before_heads_and_the_scale(name, monkeypatch):
    module, function, scale = PACKAGES[name]
    calls = FakeAttention()
    install_fake(monkeypatch, module.partition(".")[0])
    install_fake(monkeypatch, module, **{function: calls})
    assert BACKENDS[name].probe() is None
    qkv = values(torch.float32)
    out = BACKENDS[name].load()(*qkv, None)
    torch.testing.assert_close(out.double(), reference(*qkv), rtol=0, atol=2e-6)
    assert calls == [((B, S, N, K), (B, L, N, K), {scale: pytest.approx(K**-0.5)})]


def test_fa3_builds_that_return_sums_are_supported(monkeypatch):
    install_fake(monkeypatch, "flash_attn_interface", flash_attn_func=lambda q, k, v, softmax_scale: (q * 2, "sums"))
    q, k, v = values(torch.float32)
    assert torch.equal(BACKENDS["fa3"].load()(q, k, v, None), (q * 2).flatten(2))


def test_fa3_comes_from_the_hub_cache_without_a_download(monkeypatch):
    requests = []

    def install_kernel(repo, **options):
        requests.append((repo, options["local_files_only"]))
        return "folder"

    kernel = ModuleType("kernel")
    vars(kernel)["flash_attn_func"] = FakeAttention()
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    install_fake(monkeypatch, "kernels", install_kernel=install_kernel, get_local_kernel={"folder": kernel}.get)
    qkv = values(torch.float32)
    torch.testing.assert_close(BACKENDS["fa3"].load()(*qkv, None).double(), reference(*qkv), rtol=0, atol=2e-6)
    assert requests == [(packages.FA3, True)]


def test_a_kernel_missing_from_the_cache_names_the_command(monkeypatch):
    def install_kernel(repo, **options):
        raise ValueError("Version 1 is not available in the local cache. Download it")

    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    install_fake(monkeypatch, "kernels", install_kernel=install_kernel)
    reason = BACKENDS["fa3"].probe()
    assert "not available in the local cache" in reason
    assert packages.DOWNLOAD_COMMAND in reason


@pytest.mark.parametrize(("name", "extra"), [("fa3", "fa3"), ("flash-attn", "flash"), ("xformers", "xformers")])
def test_a_missing_package_names_its_install_command(name, extra, monkeypatch):
    for module in ("flash_attn", "flash_attn_interface", "xformers", "xformers.ops", "kernels"):
        monkeypatch.setitem(sys.modules, module, None)
    assert install_command(extra) in BACKENDS[name].probe()


def test_a_folder_named_kernels_is_not_the_package(monkeypatch):
    install_fake(monkeypatch, "kernels")
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    assert BACKENDS["fa3"].probe().startswith("not installed")


def test_a_package_for_another_torch_is_skipped(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise OSError("undefined symbol: _ZN3c10\nand a long list")

    monkeypatch.setitem(sys.modules, "flash_attn", Broken("flash_attn"))
    assert BACKENDS["flash-attn"].probe().startswith("does not load (undefined symbol: _ZN3c10)")


@pytest.mark.parametrize(("version", "reason"), [(None, "no cuDNN"), (91002, "too old"), (91700, None)])
def test_an_old_cudnn_is_rejected(version, reason, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    message = torch_sdpa.probe_cudnn()
    assert message is None if reason is None else reason in message
