"""Torch devices by the names of options."""

from __future__ import annotations

import torch

from pavdm_cli.errors import DeviceError
from pavdm_cli.models.execution import DEVICES
from pavdm_cli.runtime.validation import check_name

HOST = torch.device("cpu")


def pick_device(name: str, option: str = "--device") -> torch.device:
    """The device that an option names; auto takes a GPU if there is one. Raises: UsageError, DeviceError."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, usable in available.items() if usable))
    check_name(option, name, DEVICES)
    if not available[name]:
        raise DeviceError(f"there is no {name} device here", f"use {option} cpu, or see `pavdm doctor`")
    return torch.device(name)


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matmuls are faster than float32 ones: on GPUs, and on CPUs with instructions for them."""
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def set_threads(count: int) -> None:
    """Limit torch to `count` CPU threads; 0 keeps its default."""
    if count:
        torch.set_num_threads(count)
