"""Attention by optional packages: FlashAttention 2 and 3, xFormers. All take (B, S, N, K) without a transpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from pavdm_cli.attention.backend import AttentionFn
from pavdm_cli.runtime.install_hints import install_command

FA3 = "kernels-community/flash-attn3"
DOWNLOAD_COMMAND = f"""python -c "import kernels; kernels.install_kernel('{FA3}', version=1)\""""


def load_flash() -> AttentionFn:
    """FlashAttention 2. Raises: ImportError."""
    function = import_module("flash_attn").flash_attn_func
    return _without_mask(lambda q, k, v: function(q, k, v, softmax_scale=_scale(q)))


def load_xformers() -> AttentionFn:
    """xFormers' own choice among its operators. Raises: ImportError."""
    function = import_module("xformers.ops").memory_efficient_attention
    return _without_mask(lambda q, k, v: function(q, k, v, scale=_scale(q)))


def load_fa3() -> AttentionFn:
    """FlashAttention 3, as a package or from the Hugging Face cache. Raises: ImportError, ValueError."""
    function = _fa3_function()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(q, k, v, softmax_scale=_scale(q))
        values: Tensor = out[0] if isinstance(out, tuple) else out  # some builds also return the softmax sums
        return values

    return _without_mask(call)


def probe_flash_attn() -> str | None:
    """Why FlashAttention 2 cannot be used, or None."""
    return _probe(load_flash, install_command("flash"))


def probe_xformers() -> str | None:
    """Why xFormers cannot be used, or None."""
    return _probe(load_xformers, install_command("xformers"))


def probe_fa3() -> str | None:
    """Why FlashAttention 3 cannot be used, or None. It is code from a hub, so it is never downloaded here."""
    return _probe(load_fa3, f"{install_command('fa3')} and then, once, {DOWNLOAD_COMMAND}")


def _fa3_function() -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = import_module("flash_attn_interface").flash_attn_func
        return function
    except ModuleNotFoundError:
        pass
    hub = import_module("kernels")
    if not hasattr(hub, "install_kernel"):  # an old version, or a folder of that name in the working directory
        raise ModuleNotFoundError("no kernels package of 0.17 or later")
    folder = hub.install_kernel(FA3, version=1, local_files_only=True, trust_remote_code=True)
    attention: Callable[..., Any] = hub.get_local_kernel(folder).flash_attn_func
    return attention


def _without_mask(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> AttentionFn:
    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is None
        return function(q, k, v).flatten(2)

    return run


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _probe(load: Callable[[], AttentionFn], install: str) -> str | None:
    try:
        load()
    except ModuleNotFoundError:
        return f"not installed: {install}"
    except Exception as error:  # a package built for another torch can raise anything
        return f"does not load ({str(error).partition('. ')[0].splitlines()[0]}): {install}"
    return None
