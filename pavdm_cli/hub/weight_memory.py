"""What weights take on a device, counted from their headers, and what is free there: checked before loading."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from pavdm_cli.errors import DeviceError
from pavdm_cli.hub.checkpoint import shapes, tensors

MEMINFO = Path("/proc/meminfo")


def weight_bytes(folder: Path, dtype: torch.dtype, unused: tuple[str, ...] = ()) -> int:
    """Bytes of a part's weights in the precision they are run in; no weight is read. Raises: ModelError."""
    return dtype.itemsize * sum(math.prod(shape) for shape in shapes(tensors(folder, unused)).values())


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text()) if MEMINFO.exists() else None
    return 1024 * int(found[1]) if device.type == "cpu" and found else None


def check_room(what: str, wanted: int, device: torch.device, hint: str) -> None:
    """Refuse weights that do not fit, before any of them is loaded. Raises: DeviceError."""
    free = free_bytes(device)
    if free is not None and wanted > free:
        raise DeviceError(f"{what} takes {gigabytes(wanted)} on {device.type}, {gigabytes(free)} are free", hint)


def gigabytes(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 50_000_000 else f"{count / 1e6:.1f} MB"
