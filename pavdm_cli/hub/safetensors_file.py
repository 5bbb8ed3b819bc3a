"""Opens safetensors files of unknown origin: regular files whose header is checked before anything is mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from pavdm_cli.runtime.untrusted import (
    MAX_BYTES,
    InvalidError,
    check_regular,
    integer,
    list_of,
    mapping_of,
    mismatches,
    open_nonblocking,
    parse_json,
    string,
    summarize,
)

MAX_TENSORS = 100_000
MAX_NAME_LENGTH = 1000
ENTRY = {
    "dtype": string(20),
    "shape": list_of(integer(0, 1 << 40), 16),
    "data_offsets": list_of(integer(0, 1 << 62), 2, 2),
}
TEXTS = mapping_of(string(MAX_BYTES), 1000)


def open_weights(path: Path) -> Any:
    """A safetensors file, mapped, as `safe_open` gives it. Raises: InvalidError, OSError, SafetensorError."""
    check_header(path)
    return safe_open(path, "pt")


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor. Raises: InvalidError, OSError, SafetensorError."""
    with open_weights(path) as file:
        value: Tensor = file.get_tensor(name)
    return value


def check_header(path: Path) -> None:
    """Reject a header that is longer than its file, is not bounded JSON, or does not describe tensors.

    Raises: InvalidError, OSError.
    """
    with open(path, "rb", opener=open_nonblocking) as file:
        status = os.fstat(file.fileno())
        check_regular(status)
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_BYTES, status.st_size - 8):
            raise InvalidError("its header has an invalid length")
        header = file.read(length)
    try:
        entries = parse_json(header.decode())
    except UnicodeDecodeError:
        raise InvalidError("its header is not text") from None
    if not isinstance(entries, dict) or not TEXTS.fits(entries.pop("__metadata__", {})):
        raise InvalidError("its header lists no tensors")
    if len(entries) > MAX_TENSORS:
        raise InvalidError(f"it lists {len(entries)} tensors, more than {MAX_TENSORS}")
    for name, entry in entries.items():
        _check_entry(name, entry)


def _check_entry(name: str, entry: Any) -> None:
    if len(name) > MAX_NAME_LENGTH or not isinstance(entry, dict):
        raise InvalidError(f"its header describes no tensor: {summarize(name)}")
    if wrong := mismatches(entry, ENTRY, required=ENTRY):
        raise InvalidError(f"its header describes no tensor: in {summarize(name)} {wrong[0]}")
