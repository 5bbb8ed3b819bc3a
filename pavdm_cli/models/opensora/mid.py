"""A network for benchmarks: Open-Sora's window and steps at a size that a CPU can run, with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pavdm_cli.models.opensora.model import OpenSoraModel
from pavdm_cli.models.opensora.spec import SPEC

SIZES = (("hidden", 384), ("depth", 6), ("heads", 6), ("text_width", 512), ("text_length", 60))
MODEL = OpenSoraModel(
    replace(
        SPEC,
        name="mid",
        description="Open-Sora's window and steps at a size that a CPU can run",
        folder=Path(),
        size=(96, 160),
    ),
    sizes=SIZES,
    depends_on_size=False,
)
