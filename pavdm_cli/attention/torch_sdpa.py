"""Attention by torch: its own choice of kernel, or one kernel by name."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pavdm_cli.attention.backend import Run
from pavdm_kernels import dot_product

SWITCHES = threading.Lock()  # torch's switches of kernels are the whole process's: held by whoever turns or heeds them
TRUSTED_CUDNN = 91501  # torch itself passes over older ones: lengths that are no multiple of 128 go wrong


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, S, N, K) -> (B, S, N * K)
    """Every query on every key the mask allows; heads come back side by side.

    q (B, S, N, K); k, v (B, L, N, K); mask bool, broadcast to (B, N, S, L), True = attend.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return dot_product(q, k, v, mask).transpose(1, 2).flatten(2)


def only(kernel: SDPBackend) -> Run:
    """One of torch's kernels and no other; the switch costs some ten microseconds of CPU a call, none in a graph."""

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        with nullcontext() if torch.compiler.is_compiling() else SWITCHES, sdpa_kernel(kernel):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    return run


def probe_flash() -> str | None:
    """Why torch has no flash kernel for GPUs, or None."""
    built = not torch.version.cuda or torch.backends.cuda.is_flash_attention_available()
    return None if built else "this torch was built without it: pip install torch"


def probe_cudnn() -> str | None:
    """Why cuDNN is missing or not to be trusted, or None."""
    found: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if found is None:
        return "this torch has no cuDNN: pip install torch, in its form for CUDA"
    if found < TRUSTED_CUDNN:
        return f"cuDNN {found} is too old, {TRUSTED_CUDNN} is needed: pip install --upgrade torch"
    return None
