"""Weights in huggingface_hub's own cache: located at the pinned revisions, and linked into a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pavdm_cli.errors import ModelError, OutputError
from pavdm_cli.hub.download import git_blob_of, select_files, sha256_of
from pavdm_cli.runtime import untrusted
from pavdm_cli.runtime.untrusted import InvalidError

if TYPE_CHECKING:
    from pavdm_cli.models.spec import ModelSpec, WeightPart

COMMIT = re.compile("[0-9a-f]{40}")
SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
INDEX = ".safetensors.index.json"


def cache_root() -> Path:
    """The folder of the hub's cache, by the same environment variables, without importing huggingface_hub."""
    user = os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    home = _expand(os.environ.get("HF_HOME", os.path.join(user, "huggingface")))
    cache = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return Path(_expand(os.environ.get("HF_HUB_CACHE", cache)))


def cached_files(part: WeightPart) -> dict[str, Path]:
    """The files of a part's repository that are in the cache at the pinned revision, by name."""
    folder = _repository(part) / "snapshots" / commit_of(part)
    files: dict[str, Path] = {}
    for path in part.paths:
        with suppress(OSError):
            names = os.listdir(folder / path)
            files = {name: folder / path / name for name in names if (folder / path / name).is_file()} | files
    return files


def commit_of(part: WeightPart) -> str:
    """The commit of a part's revision; of a branch the last downloaded one, if any."""
    if COMMIT.fullmatch(part.revision):
        return part.revision
    try:
        commit = untrusted.read_text(_repository(part) / "refs" / part.revision, 100).strip()
    except (OSError, InvalidError):
        return part.revision
    return commit if COMMIT.fullmatch(commit) else part.revision


def _repository(part: WeightPart) -> Path:
    return cache_root() / f"models--{part.repo.replace('/', '--')}"


def cached_model(spec: ModelSpec) -> dict[str, Path]:
    """All files of a model in the cache, by their path in its folder; empty unless the model is complete."""
    files: dict[str, Path] = {}
    for part in spec.parts:
        paths = cached_files(part)
        if not (names := _complete(part, paths)):
            return {}
        files |= {f"{part.folder}/{name}": paths[name] for name in names}
    return files


def linked_folder(spec: ModelSpec, root: Path) -> Path | None:
    """A folder in root with the layout of a model and links into the cache; None if a file is missing.

    None also if links are not possible: then `pavdm models pull` copies the files.
    """
    files = cached_model(spec)
    revisions = hashlib.sha256("".join(map(commit_of, spec.parts)).encode()).hexdigest()
    folder = root / f"{spec.folder}@{revisions[:8]}"
    try:
        for name, source in files.items():
            _link(source, folder / name)
    except OSError:
        return None
    return folder if files else None


def copy_file(source: Path, target: Path) -> None:
    """Hard-link a file of the cache to another path, or copy it to another disk. Raises: OutputError."""
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "free some space, or choose another --folder"
        ) from error


def removal_command(spec: ModelSpec) -> str:
    """The command that deletes a model's files from the cache, for hints."""
    return f"`hf cache rm {' '.join(f'model/{part.repo}' for part in spec.parts)}`"


def changed_files(spec: ModelSpec, folder: Path, watch: Callable[[str], None]) -> list[str]:
    """Files in a folder of links whose contents changed: the cache names them by SHA-256 or git's hash."""
    wrong = []
    for name in cached_model(spec):
        watch(name)
        path = folder / name
        blob_name = path.resolve().name
        if blob_name != (sha256_of(path) if len(blob_name) == 64 else git_blob_of(path)):
            wrong.append(name)
    return wrong


def _complete(part: WeightPart, paths: dict[str, Path]) -> set[str]:
    """The names of a part's files, or none if one is missing."""
    try:
        names = select_files([*paths])
    except ModelError:
        return set()
    needed_names = {"config.json"} | ({"spiece.model"} if part.text else set())
    weights = {name for name in names if name.endswith(".safetensors")}
    for index in (name for name in names if name.endswith(INDEX)):
        needed_names |= _indexed_names(paths[index])
    if not weights or (any(map(SHARD.search, weights)) and not any(name.endswith(INDEX) for name in names)):
        return set()
    return names if needed_names <= names else set()


def _indexed_names(path: Path) -> set[str]:
    """The files that an index names; if it cannot be read, a name that no file has."""
    try:
        value = untrusted.read_json(path)
        return {str(name) for name in value["weight_map"].values()}
    except (OSError, InvalidError, KeyError, TypeError, AttributeError):
        return {""}


def _link(source: Path, target: Path) -> None:
    """Replace a path with a link. Raises: OSError."""
    if target.is_symlink() and os.readlink(target) == str(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.symlink_to(source)
    except (OSError, NotImplementedError):  # Windows, without the right to
        os.link(source.resolve(), temporary)
    os.replace(temporary, target)


def _expand(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))
