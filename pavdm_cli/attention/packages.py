"""Attention by packages that may be installed: FlashAttention 2 and 3, xFormers. All take (B, S, N, K) as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from pavdm_cli.attention.backend import Run
from pavdm_cli.runtime.install_hints import install_command

FA3 = "kernels-community/flash-attn3"
FETCH = f"""python -c "import kernels; kernels.install_kernel('{FA3}', version=1)\""""


def load_flash() -> Run:
    """FlashAttention 2. Raises: ImportError."""
    function = import_module("flash_attn").flash_attn_func
    return _calling(lambda q, k, v: function(q, k, v, softmax_scale=_scale(q)))


def load_xformers() -> Run:
    """The best of xFormers' operators. Raises: ImportError."""
    function = import_module("xformers.ops").memory_efficient_attention
    return _calling(lambda q, k, v: function(q, k, v, scale=_scale(q)))


def load_fa3() -> Run:
    """FlashAttention 3: installed, or fetched from the Hugging Face hub before. Raises: ImportError, ValueError."""
    function = _fa3()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(q, k, v, softmax_scale=_scale(q))
        found: Tensor = out[0] if isinstance(out, tuple) else out  # some builds give the softmax's sums as well
        return found

    return _calling(call)


def probe_flash_attn() -> str | None:
    """Why FlashAttention 2 cannot be used, or None."""
    return _probe(load_flash, install_command("flash"))


def probe_xformers() -> str | None:
    """Why xFormers cannot be used, or None."""
    return _probe(load_xformers, install_command("xformers"))


def probe_fa3() -> str | None:
    """Why FlashAttention 3 cannot be used, or None. It is code from a hub, so nothing here ever downloads it."""
    return _probe(load_fa3, f"{install_command('fa3')} and then, once, {FETCH}")


def _fa3() -> Callable[..., Any]:
    try:
        installed: Callable[..., Any] = import_module("flash_attn_interface").flash_attn_func
        return installed
    except ModuleNotFoundError:
        pass
    hub = import_module("kernels")
    if not hasattr(hub, "install_kernel"):  # an old one, or a folder of that name where the program runs
        raise ModuleNotFoundError("no kernels package of 0.17 or later")
    folder = hub.install_kernel(FA3, version=1, local_files_only=True, trust_remote_code=True)
    fetched: Callable[..., Any] = hub.get_local_kernel(folder).flash_attn_func
    return fetched


def _calling(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Run:
    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is None
        return function(q, k, v).flatten(2)

    return run


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _probe(load: Callable[[], Run], install: str) -> str | None:
    try:
        load()
    except ModuleNotFoundError:
        return f"not installed: {install}"
    except Exception as error:  # a package built for another torch may raise anything
        return f"does not load ({str(error).partition('. ')[0].splitlines()[0]}): {install}"
    return None
