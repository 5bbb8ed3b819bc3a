"""The table of back ends. A row that no rule of `choice` names is used only when asked for."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.attention import SDPBackend

from pavdm_cli.attention import packages, torch_sdpa
from pavdm_cli.attention.backend import KINDS, Backend, Limits
from pavdm_cli.attention.torch_sdpa import attend, only

SHORT = (torch.float16, torch.bfloat16)
LAST = (12, 1)  # the newest GPUs that torch's own checks let through


def _always() -> None:
    return None


ROWS = (
    Backend(
        "fa3",
        {"cuda": Limits(SHORT, (9, 0), (9, 9), widest=256, multiple=8, masks=False)},
        packages.load_fa3,
        packages.probe_fa3,
    ),
    Backend(
        "cudnn",
        {"cuda": Limits(SHORT, (8, 0), LAST, widest=128, multiple=8, keys=2, masks=False)},
        partial(only, SDPBackend.CUDNN_ATTENTION),
        torch_sdpa.probe_cudnn,
    ),
    Backend(
        "sdpa-flash",
        {"cuda": Limits(SHORT, (8, 0), LAST, widest=256, masks=False), "cpu": Limits()},
        partial(only, SDPBackend.FLASH_ATTENTION),
        torch_sdpa.probe_flash,
    ),
    Backend(
        "flash-attn",
        {"cuda": Limits(SHORT, (8, 0), widest=256, multiple=8, masks=False)},
        packages.load_flash,
        packages.probe_flash_attn,
    ),
    Backend(
        "xformers",
        {"cuda": Limits((*SHORT, torch.float32), (8, 0), multiple=8, masks=False)},
        packages.load_xformers,
        packages.probe_xformers,
    ),
    Backend(
        "sdpa-efficient",
        {"cuda": Limits((*SHORT, torch.float32), (8, 0), LAST, multiple=8)},
        partial(only, SDPBackend.EFFICIENT_ATTENTION),
        _always,
    ),
    Backend("sdpa-math", dict.fromkeys(KINDS, Limits()), partial(only, SDPBackend.MATH), _always),
    Backend("sdpa", dict.fromkeys(KINDS, Limits()), lambda: attend, _always),
)
BACKENDS = {backend.name: backend for backend in ROWS}
