"""The folders of downloaded models."""

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
    """The folder of everything that pavdm can download or compute again."""
    return user_cache_path("pavdm", appauthor=False)


def weights_folder(spec: ModelSpec) -> Path:
    """Where a model is loaded from: its own folder if absolute, else the download, else links into the hub's cache."""
    folder = download_folder(spec)
    if spec.folder.is_absolute() or all((folder / part.folder).is_dir() for part in spec.parts):
        return folder
    return linked_folder(spec, models_folder()) or folder


def download_folder(spec: ModelSpec) -> Path:
    """Where `pavdm models pull` puts a model."""
    return models_folder() / spec.folder


def models_folder() -> Path:
    """The folder of all downloaded models."""
    return cache_folder() / "models"


def is_linked(spec: ModelSpec) -> bool:
    """Whether a model is loaded from links into the hub's cache."""
    return not spec.folder.is_absolute() and weights_folder(spec) != download_folder(spec)


def pull_command(published: ModelSpec, folder: Path) -> str:
    """The command that downloads a published model's weights into a folder, for hints."""
    is_default = folder in (download_folder(published), weights_folder(published))
    option = "" if is_default else f" --folder {quote(str(folder))}"
    return f"`pavdm models pull {published.name}{option}`"


def require_weights(spec: ModelSpec, text: bool = True, published: ModelSpec | None = None) -> None:
    """Reject a model of which a part is missing. Raises: ModelError.

    text: whether a prompt will be encoded; published: the published model, if the spec is of a user's folder.
    """
    folder, published = weights_folder(spec), published or spec
    if not folder.is_dir():
        raise ModelError(f"no weights of {spec.name} in {folder}", f"{pull_command(published, folder)} downloads them")
    if ROOT in spec.architectures and not any((folder / part.folder).is_dir() for part in spec.parts):
        return  # all parts in one folder, which the model's own loader checks
    folders = [part.folder for part in spec.parts if text or not part.text]
    missing = [part for part in folders if not any((folder / part).glob("*"))]
    if missing:
        raise ModelError(f"{folder} has no {' and no '.join(missing)}", _missing(spec, published))


def _missing(spec: ModelSpec, published: ModelSpec) -> str:
    """How to get missing parts; nothing is downloaded into a user's folder, which would replace files in it."""
    download_target, command = weights_folder(published), f"`pavdm models pull {published.name}`"
    if weights_folder(spec) == download_target:
        return f"{command} downloads what is missing"
    return f"copy or link it from {download_target}, where {command} puts it"
