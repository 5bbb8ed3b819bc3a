"""Downloads, verifies and removes the parts of a model in its folder, with a manifest of hashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import ModelError, OutputError, UsageError
from pavdm_cli.hub import cache
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.download import UNFINISHED, RemoteFile, download, free_space, list_files, sha256_of, size_of
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.hub.weights_dir import download_folder, is_linked, models_folder
from pavdm_cli.runtime.untrusted import integer, mismatches, string

if TYPE_CHECKING:
    from pavdm_cli.models.spec import ModelSpec

MANIFEST = "pavdm.json"
ENTRY = {"url": string(4096), "size": integer(0, 1 << 50), "sha256": string(64)}


@dataclass(frozen=True, slots=True)
class PullPlan:
    """The files of a model, its folder, and paths of those in huggingface_hub's cache, by path in the folder."""

    folder: Path
    files: list[RemoteFile]
    cached: dict[str, Path] = field(default_factory=dict)

    @property
    def missing(self) -> list[RemoteFile]:
        """Files that are neither in the folder nor in the hub's cache."""
        return [file for file in self.files if not file.is_in(self.folder) and file.path not in self.cached]

    @property
    def remaining(self) -> int:
        """Bytes to download."""
        return sum(file.remaining(self.folder) for file in self.missing)

    @property
    def present_bytes(self) -> int:
        """Bytes that are already there, including unfinished files."""
        return sum(file.size for file in self.files) - self.remaining


def plan(spec: ModelSpec, folder: Path, endpoint: str) -> PullPlan:
    """The files of a model: by its manifest if a pull was completed, else by the repositories.

    Raises: ModelError, UsageError.
    """
    if not spec.parts:
        raise UsageError(f"{spec.name} has nothing to download", "it comes with the package")
    if _manifest(folder)["whole"] and not find_problems(folder, hashes=False):
        entries = _manifest(folder)["files"].items()
        return PullPlan(
            folder, [RemoteFile(path, entry["url"], entry["size"], entry["sha256"]) for path, entry in entries]
        )
    files = [file for part in spec.parts for file in list_files(part, endpoint)]
    cached_paths = {f"{part.folder}/{name}": p for part in spec.parts for name, p in cache.cached_files(part).items()}
    matches = {
        file.path: path for file in files if (path := cached_paths.get(file.path)) and size_of(path) == file.size
    }
    return PullPlan(folder, files, {name: path for name, path in matches.items() if size_of(folder / name) < 0})


def pull(todo: PullPlan, report: Callable[[int], None]) -> None:
    """Download missing files, and store every file's hash in the manifest. Raises: ModelError, OutputError."""
    folder, free = todo.folder, free_space(todo.folder)
    if todo.remaining > free:
        raise OutputError(
            f"{folder} needs {todo.remaining / 1e9:.1f} GB, but only {free / 1e9:.1f} GB is free",
            "free some space, or choose another --folder",
        )
    entries = _manifest(folder)["files"]
    for file in todo.files:
        if file.path in entries and file.is_in(folder):
            continue
        if file.path in todo.cached:
            cache.copy_file(todo.cached[file.path], folder / file.path)
            (folder / f"{file.path}{UNFINISHED}").unlink(missing_ok=True)
        sha256 = sha256_of(folder / file.path) if file.is_in(folder) else ""
        if not sha256 or not file.is_published(folder / file.path, sha256):
            sha256 = download(file, folder, report)
        entries[file.path] = {"url": file.url, "size": file.size, "sha256": sha256}
        _write_manifest(folder, entries, is_complete=False)
    _write_manifest(folder, {file.path: entries[file.path] for file in todo.files}, is_complete=True)


def find_problems(
    folder: Path, hashes: bool = True, watch: Callable[[str], None] = lambda name: None, command: str = ""
) -> list[str]:
    """Files of the manifest that are missing or changed; command: that downloads them. Raises: ModelError."""
    entries = _manifest(folder)["files"]
    if not entries:
        raise ModelError(
            f"{folder} was not downloaded by pavdm: nothing to compare with",
            f"{command or '`pavdm models pull`'} checks existing files",
        )
    wrong = []
    for name, entry in entries.items():
        watch(name)
        path = folder / name
        if size_of(path) != entry["size"] or (hashes and sha256_of(path) != entry["sha256"]):
            wrong.append(name)
    return wrong if _manifest(folder)["whole"] else [*wrong, "files not downloaded yet"]


def removal_target(spec: ModelSpec) -> Path:
    """The folder of a downloaded model, or the link to it. Raises: UsageError, ModelError if there is none."""
    folder, root = download_folder(spec), models_folder()
    if not spec.parts and spec.folder.is_relative_to(Path(__file__).parents[1]):
        raise UsageError(
            f"{spec.name} is bundled with this package and cannot be removed", "uninstall the package instead"
        )
    if not spec.parts or folder.parent != root:
        raise UsageError(f"{spec.name} is not among the downloaded models in {root}", "delete its folder yourself")
    if not folder.is_dir() and not folder.is_symlink() and is_linked(spec):
        location = f"in the hub's own cache, {cache.cache_root()}"
        raise ModelError(f"{spec.name} is {location}", f"{cache.removal_command(spec)} deletes it")
    if not folder.is_dir() and not folder.is_symlink():
        raise ModelError(f"no weights of {spec.name} in {folder}", "there is nothing to remove")
    return folder


def delete(folder: Path) -> int:
    """Delete a folder, or only the link to it; returns the bytes that are freed. Raises: OutputError."""
    try:
        if folder.is_symlink():
            folder.unlink()
            return 0
        size = sum(max(0, size_of(path)) for path in folder.rglob("*"))
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot delete {folder}: {error.strerror or error}", "delete it yourself") from error
    return size


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of earlier pulls: `files`, each with url, size and sha256, and whether they are the `whole` model.

    Raises: ModelError if it is damaged or names files outside the folder.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path) if path.exists() else {"files": {}, "whole": False}
    except ModelError as error:
        raise ModelError(error.message, "delete it and pull again: other files are kept") from error
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(name.isprintable() and _is_entry(files[name]) for name in files):
        raise ModelError(f"{path} was not written by `pavdm models pull`", "delete it and pull again")
    if any(not (folder / name).resolve().is_relative_to(folder.resolve()) for name in files):
        raise ModelError(f"{path} names files outside its folder", "delete it and pull again")
    return {"files": files, "whole": bool(manifest.get("whole"))}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and not mismatches(entry, ENTRY, required=ENTRY)


def _write_manifest(folder: Path, entries: dict[str, Any], is_complete: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps({"files": entries, "whole": is_complete}, indent=1), encoding="utf-8")
