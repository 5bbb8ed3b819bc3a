"""A model's parts in its folder: which are missing, fetched with their hashes kept, checked and removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import ModelError, OutputError, UsageError
from pavdm_cli.hub import cache
from pavdm_cli.hub.atomic import in_place_of
from pavdm_cli.hub.checkpoint import read_json
from pavdm_cli.hub.download import UNFINISHED, File, fetch, free_space, hash_of, listing, size_of
from pavdm_cli.hub.weights_dir import is_linked, models_folder, own_folder
from pavdm_cli.runtime.untrusted import integer, mismatches, string

if TYPE_CHECKING:
    from pavdm_cli.models.spec import ModelSpec

MANIFEST = "pavdm.json"
ENTRY = {"url": string(4096), "size": integer(0, 1 << 50), "sha256": string(64)}


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a model, its folder, and those that huggingface_hub's own cache has, by their place."""

    folder: Path
    files: list[File]
    cached: dict[str, Path] = field(default_factory=dict)

    @property
    def missing(self) -> list[File]:
        """Files that are neither there, by their size, nor in the hub's cache."""
        return [file for file in self.files if not file.is_in(self.folder) and file.place not in self.cached]

    @property
    def left(self) -> int:
        """Bytes to fetch."""
        return sum(file.left(self.folder) for file in self.missing)

    @property
    def there(self) -> int:
        """Bytes that are there, unfinished files included."""
        return sum(file.size for file in self.files) - self.left


def plan(spec: ModelSpec, folder: Path, endpoint: str) -> Plan:
    """The files of a model: by its manifest where a pull was finished and all are there, else by the repositories.

    Raises: ModelError, UsageError.
    """
    if not spec.parts:
        raise UsageError(f"{spec.name} has nothing to fetch", "it comes with the package")
    if _manifest(folder)["whole"] and not problems(folder, hashes=False):
        entries = _manifest(folder)["files"].items()
        return Plan(folder, [File(place, entry["url"], entry["size"], entry["sha256"]) for place, entry in entries])
    files = [file for part in spec.parts for file in listing(part, endpoint)]
    cached = {f"{part.folder}/{name}": p for part in spec.parts for name, p in cache.cached_files(part).items()}
    same = {file.place: path for file in files if (path := cached.get(file.place)) and size_of(path) == file.size}
    return Plan(folder, files, {place: path for place, path in same.items() if size_of(folder / place) < 0})


def pull(wanted: Plan, advance: Callable[[int], None]) -> None:
    """Fetch what is missing, and note every file's hash in the manifest. Raises: ModelError, OutputError."""
    folder, free = wanted.folder, free_space(wanted.folder)
    if wanted.left > free:
        raise OutputError(
            f"{wanted.left / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free",
            "free some space, or choose another --folder",
        )
    entries = _manifest(folder)["files"]
    for file in wanted.files:
        if file.place in entries and file.is_in(folder):
            continue
        if file.place in wanted.cached:
            cache.copy_file(wanted.cached[file.place], folder / file.place)
            (folder / f"{file.place}{UNFINISHED}").unlink(missing_ok=True)
        found = hash_of(folder / file.place) if file.is_in(folder) else ""
        if not found or not file.is_published(folder / file.place, found):
            found = fetch(file, folder, advance)
        entries[file.place] = {"url": file.url, "size": file.size, "sha256": found}
        _write(folder, entries, whole=False)
    _write(folder, {file.place: entries[file.place] for file in wanted.files}, whole=True)


def problems(
    folder: Path, hashes: bool = True, watch: Callable[[str], None] = lambda name: None, command: str = ""
) -> list[str]:
    """Files of the manifest that are missing or changed; command: the one that fetches them. Raises: ModelError."""
    entries = _manifest(folder)["files"]
    if not entries:
        raise ModelError(
            f"{folder} was not fetched by pavdm: nothing to compare with",
            f"{command or '`pavdm models pull`'} checks what is there",
        )
    wrong = []
    for name, entry in entries.items():
        watch(name)
        path = folder / name
        if size_of(path) != entry["size"] or (hashes and hash_of(path) != entry["sha256"]):
            wrong.append(name)
    return wrong if _manifest(folder)["whole"] else [*wrong, "files not fetched yet"]


def removable(spec: ModelSpec) -> Path:
    """The folder of a fetched model, or the link to it. Raises: UsageError, ModelError where there is none."""
    folder, root = own_folder(spec), models_folder()
    if not spec.parts and spec.folder.is_relative_to(Path(__file__).parents[1]):
        raise UsageError(
            f"{spec.name} is bundled with this package and cannot be removed", "uninstall the package instead"
        )
    if not spec.parts or folder.parent != root:
        raise UsageError(f"{spec.name} is not among the fetched models in {root}", "delete its folder yourself")
    if not folder.is_dir() and not folder.is_symlink() and is_linked(spec):
        where = f"in the hub's own cache, {cache.cache_root()}"
        raise ModelError(f"{spec.name} is {where}", f"{cache.removal(spec)} deletes it")
    if not folder.is_dir() and not folder.is_symlink():
        raise ModelError(f"no weights of {spec.name} in {folder}", "there is nothing to remove")
    return folder


def delete(folder: Path) -> int:
    """Delete a folder, or the link to it alone; the bytes that are freed. Raises: OutputError."""
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
    """What earlier pulls noted: `files`, each with url, size and sha256, and whether they are the `whole` model.

    Raises: ModelError for a broken one, or for names that leave the folder.
    """
    path = folder / MANIFEST
    try:
        found = read_json(path) if path.exists() else {"files": {}, "whole": False}
    except ModelError as error:
        raise ModelError(error.message, "delete it and pull again: other files are kept") from error
    files = found.get("files")
    if not isinstance(files, dict) or not all(name.isprintable() and _is_entry(files[name]) for name in files):
        raise ModelError(f"{path} is not what `pavdm models pull` writes", "delete it and pull again")
    if any(not (folder / name).resolve().is_relative_to(folder.resolve()) for name in files):
        raise ModelError(f"{path} names files outside its folder", "delete it and pull again")
    return {"files": files, "whole": bool(found.get("whole"))}


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and not mismatches(entry, ENTRY, required=ENTRY)


def _write(folder: Path, entries: dict[str, Any], whole: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with in_place_of(folder / MANIFEST) as beside:
        beside.write_text(json.dumps({"files": entries, "whole": whole}, indent=1), encoding="utf-8")
