"""Where downloaded models are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.cache import linked_folder
from pavdm_cli.hub.recognize import ROOT
from pavdm_cli.runtime.printable import quote

if TYPE_CHECKING:
    from pavdm_cli.models.spec import ModelSpec


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


def pulling(published: ModelSpec, folder: Path) -> str:
    """The command that downloads a published model's weights into a folder, for hints."""
    there = "" if folder in (own_folder(published), home(published)) else f" --folder {quote(str(folder))}"
    return f"`pavdm models pull {published.name}{there}`"


def need_weights(spec: ModelSpec, text: bool = True, published: ModelSpec | None = None) -> None:
    """Raises: ModelError where a model's weights are not there, or a part of them.

    text: whether a prompt will be encoded; published: the model under its own name, where the spec is of a folder.
    """
    folder, published = home(spec), published or spec
    if not folder.is_dir():
        raise ModelError(f"no weights of {spec.name} in {folder}", f"{pulling(published, folder)} fetches them")
    if ROOT in spec.architectures and not any((folder / part.folder).is_dir() for part in spec.parts):
        return  # all parts in one folder, which the model's own loader checks
    needed = [part.folder for part in spec.parts if text or not part.text]
    lacking = [part for part in needed if not any((folder / part).glob("*"))]
    if lacking:
        raise ModelError(f"{folder} has no {' and no '.join(lacking)}", _missing(spec, published))


def _missing(spec: ModelSpec, published: ModelSpec) -> str:
    """Where missing parts come from; a folder of one's own is not fetched into, which would replace what is in it."""
    fetched, command = home(published), f"`pavdm models pull {published.name}`"
    if home(spec) == fetched:
        return f"{command} fetches what is missing"
    return f"copy or link it from {fetched}, where {command} puts it"
