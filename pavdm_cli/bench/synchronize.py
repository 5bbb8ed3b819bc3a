"""Waiting for a device, so that a clock read after it is true."""

from __future__ import annotations

import torch


def synchronise(device: torch.device) -> None:
    """Wait until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
