"""The table of backends; one that no order of `choice` names is used only on request."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.attention import SDPBackend

from pavdm_cli.attention import packages, torch_sdpa
from pavdm_cli.attention.backend import Backend, Limits
from pavdm_cli.attention.torch_sdpa import attend, sdpa_with

HALF = (torch.float16, torch.bfloat16)
NEWEST = (12, 1)  # the newest compute capability that torch's own checks accept
ANYWHERE = dict.fromkeys(("cpu", "cuda", "rocm", "mps"), Limits())


def _available() -> None:
    return None


ROWS = (
    Backend(
        "fa3",
        {"cuda": Limits(HALF, (9, 0), (9, 9), max_width=256, width_multiple=8, masks=False)},
        packages.load_fa3,
        packages.probe_fa3,
    ),
    Backend(
        "cudnn",
        {"cuda": Limits(HALF, (8, 0), NEWEST, max_width=128, width_multiple=8, min_keys=2, masks=False)},
        partial(sdpa_with, SDPBackend.CUDNN_ATTENTION),
        torch_sdpa.probe_cudnn,
    ),
    Backend(
        "sdpa-flash",
        {"cuda": Limits(HALF, (8, 0), NEWEST, max_width=256, masks=False), "cpu": Limits()},
        partial(sdpa_with, SDPBackend.FLASH_ATTENTION),
        torch_sdpa.probe_flash,
    ),
    Backend(
        "flash-attn",
        {"cuda": Limits(HALF, (8, 0), max_width=256, width_multiple=8, masks=False)},
        packages.load_flash,
        packages.probe_flash_attn,
    ),
    Backend(
        "xformers",
        {"cuda": Limits((*HALF, torch.float32), (8, 0), width_multiple=8, masks=False)},
        packages.load_xformers,
        packages.probe_xformers,
    ),
    Backend(
        "sdpa-efficient",
        {"cuda": Limits((*HALF, torch.float32), (8, 0), NEWEST, width_multiple=8)},
        partial(sdpa_with, SDPBackend.EFFICIENT_ATTENTION),
        _available,
    ),
    Backend("sdpa-math", ANYWHERE, partial(sdpa_with, SDPBackend.MATH), _available),
    Backend("sdpa", ANYWHERE, lambda: attend, _available),
)
BACKENDS = {backend.name: backend for backend in ROWS}
