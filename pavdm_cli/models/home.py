"""Where downloaded models are on this machine."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

from pavdm_cli.printable import quote
from pavdm_cli.specs import OPENSORA, ModelSpec


def cache_folder() -> Path:
    """Of all that pavdm can fetch or make again."""
    return user_cache_path("pavdm", appauthor=False)


def home(spec: ModelSpec) -> Path:
    """A model's folder: its own, if that is absolute, else one among the downloaded."""
    return cache_folder() / "models" / spec.folder


def pulling(folder: Path) -> str:
    """The command that fetches weights into a folder, for hints."""
    there = "" if folder == home(OPENSORA) else f" --folder {quote(str(folder))}"
    return f"`pavdm models pull {OPENSORA.name}{there}`"
