"""Attention by torch: with its own choice of kernel, or with one kernel."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pavdm_cli.attention.backend import AttentionFn
from pavdm_kernels import dot_product

SDPA_LOCK = threading.Lock()  # torch's kernel switches are global: hold this while changing or relying on them
MIN_CUDNN = 91501  # as torch requires: older versions are wrong for lengths that are not a multiple of 128


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:  # (B, S, N, K) -> (B, S, N * K)
    """Attention of every query to every key that the mask allows, with the heads concatenated.

    q (B, S, N, K); k, v (B, L, N, K); mask bool, broadcast to (B, N, S, L), True = attend.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return dot_product(q, k, v, mask).transpose(1, 2).flatten(2)


def sdpa_with(kernel: SDPBackend) -> AttentionFn:
    """Attention by one of torch's kernels; selecting it takes about 10 us of CPU per call, none in a CUDA graph."""

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        with nullcontext() if torch.compiler.is_compiling() else SDPA_LOCK, sdpa_kernel(kernel):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    return run


def probe_flash() -> str | None:
    """Why torch's flash kernel cannot be used, or None."""
    available = not torch.version.cuda or torch.backends.cuda.is_flash_attention_available()
    return None if available else "this torch was built without it: pip install torch"


def probe_cudnn() -> str | None:
    """Why cuDNN cannot be used, or None."""
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is None:
        return "this torch has no cuDNN: pip install torch, built for CUDA"
    if version < MIN_CUDNN:
        return f"cuDNN {version} is too old, {MIN_CUDNN} is needed: pip install --upgrade torch"
    return None
