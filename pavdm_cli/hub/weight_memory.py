"""Memory of weights on a device, from their headers, compared with what is free before anything is loaded."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from pavdm_cli.errors import DeviceError
from pavdm_cli.hub.checkpoint import locate_tensors, tensor_shapes

MEMINFO = Path("/proc/meminfo")


def weight_bytes(folder: Path, dtype: torch.dtype, unused_prefixes: tuple[str, ...] = ()) -> int:
    """Bytes of a part's weights in the precision they are run in, from the headers alone. Raises: ModelError."""
    return dtype.itemsize * sum(
        math.prod(shape) for shape in tensor_shapes(locate_tensors(folder, unused_prefixes)).values()
    )


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None if unknown."""
    if device.type == "cuda":
        if not torch.cuda.is_available():  # planned for another machine
            return None
        return int(torch.cuda.mem_get_info(device)[0])
    match = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text()) if MEMINFO.exists() else None
    return 1024 * int(match[1]) if device.type == "cpu" and match else None


def check_room(subject: str, size: int, device: torch.device, hint: str) -> None:
    """Reject weights that do not fit, before any of them is loaded. Raises: DeviceError."""
    free = free_bytes(device)
    if free is not None and size > free:
        raise DeviceError(f"{subject} needs {gigabytes(size)} on {device.type}; only {gigabytes(free)} is free", hint)


def gigabytes(count: int) -> str:
    """In GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 50_000_000 else f"{count / 1e6:.1f} MB"
