"""Where downloaded models are on this machine."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

from pavdm_cli.hub.cache import linked_folder
from pavdm_cli.models.specs import OPENSORA, ModelSpec
from pavdm_cli.runtime.printable import quote


def cache_folder() -> Path:
    """Of all that pavdm can fetch or make again."""
    return user_cache_path("pavdm", appauthor=False)


def home(spec: ModelSpec) -> Path:
    """A model's folder: its own, if that is absolute, else the downloaded one, else links to the hub's own cache."""
    folder = own_folder(spec)
    if spec.folder.is_absolute() or all((folder / part.folder).is_dir() for part in spec.parts):
        return folder
    return linked_folder(spec, models_folder()) or folder


def own_folder(spec: ModelSpec) -> Path:
    """Where a model is downloaded to."""
    return models_folder() / spec.folder


def models_folder() -> Path:
    """Of all downloaded models."""
    return cache_folder() / "models"


def is_linked(spec: ModelSpec) -> bool:
    """Whether a model's files are those in the hub's own cache."""
    return not spec.folder.is_absolute() and home(spec) != own_folder(spec)


def pulling(folder: Path) -> str:
    """The command that fetches weights into a folder, for hints."""
    there = "" if folder in (own_folder(OPENSORA), home(OPENSORA)) else f" --folder {quote(str(folder))}"
    return f"`pavdm models pull {OPENSORA.name}{there}`"
