"""LoRA files as given on the command line. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.errors import UsageError

MAX_SCALE = 10.0


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file and its scale."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> LoraFile:
    """FILE, or FILE:SCALE. Raises: UsageError."""
    path, separator, scale = text.rpartition(":")
    try:
        adapter = LoraFile(Path(path), float(scale)) if separator else LoraFile(Path(text))
    except ValueError:  # a colon of the path
        adapter = LoraFile(Path(text))
    if not -MAX_SCALE <= adapter.scale <= MAX_SCALE:
        raise UsageError(f"the scale of --lora must be -10 to 10, got {scale}", "1 is the usual strength")
    if not adapter.path.is_file():
        raise UsageError(f"--lora: there is no file {adapter.path}", "give FILE.safetensors, or FILE.safetensors:0.8")
    return adapter
