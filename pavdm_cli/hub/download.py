"""Published weights from their repositories to a folder: listed, fetched from where they were cut, checked by hash."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from pavdm_cli.errors import ModelError, OutputError, PavdmError
from pavdm_cli.runtime.optional_imports import import_library, silenced

if TYPE_CHECKING:
    from pavdm_cli.models.spec import WeightPart

T = TypeVar("T")
ENDPOINT = "https://huggingface.co"
AGAIN = "what is there is kept: run the command again to go on"
NETWORK = f"see whether the network, or the proxy in HTTPS_PROXY, reaches it; {AGAIN}"
ACCESS = "accept its terms on its page there, then `hf auth login` or set HF_TOKEN"
UNFINISHED = ".part"
WANTED = ("config.json", "spiece.model")
WEIGHTS, PICKLED = (".safetensors", ".safetensors.index.json"), (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class File:
    """A published file and where it goes."""

    place: str  # below the model's folder, with forward slashes
    url: str
    size: int  # bytes
    sha256: str  # empty where the repository gives another
    blob: str = ""  # what git calls its contents, for a file that lies outside LFS

    @property
    def commit(self) -> str:
        """The commit of its repository."""
        return self.url.partition("/resolve/")[2].partition("/")[0]

    def is_in(self, folder: Path) -> bool:
        """Whether it is there, by its size."""
        return size_of(folder / self.place) == self.size

    def is_published(self, path: Path, sha256: str) -> bool:
        """Whether a file of that hash is this one, by what the repository says of it."""
        return self.sha256 in ("", sha256) and (not self.blob or self.blob == blob_of(path))

    def left(self, folder: Path) -> int:
        """Bytes still to fetch."""
        return 0 if self.is_in(folder) else self.size - max(0, size_of(folder / f"{self.place}{UNFINISHED}"))


def listing(part: WeightPart, endpoint: str = ENDPOINT) -> list[File]:
    """What is needed of a part's repository, at its commit. Raises: ModelError."""
    place = import_library("huggingface_hub.file_download").hf_hub_url
    with reaching(f"{endpoint}/{part.repo}"):
        api = import_library("huggingface_hub.hf_api").HfApi(endpoint)
        about = api.model_info(part.repo, revision=part.revision, files_metadata=True)
    try:
        check_names([file.rfilename for file in about.siblings])
        files = in_paths(part, {file.rfilename: file for file in about.siblings})
        chosen = choose([*files])
        return [
            File(
                f"{part.folder}/{name}",
                place(part.repo, file.rfilename, revision=about.sha, endpoint=endpoint),
                int(file.size),
                *_hashes(name, file),
            )
            for name, file in files.items()
            if name in chosen
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{endpoint} gave no list of {part.repo}'s files", AGAIN) from error


def _hashes(name: str, file: Any) -> tuple[str, str]:
    """A listed file's SHA-256 and blob, one of them empty; of a file in LFS, git's blob is only a pointer to it."""
    found = (file.lfs.sha256, "") if file.lfs else ("", file.blob_id)
    if not any(found):
        raise ModelError(f"the repository gives no hash of {name}: what came could not be checked", "fetch it by hand")
    return found


def check_names(names: Iterable[str]) -> None:
    """Refuse a name that would leave its folder. Raises: ModelError."""
    for name in names:
        outside = ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name or ":" in name
        if outside or not name.isprintable():
            raise ModelError(f"a published file is called {name!r}, which leaves its folder", "nothing was fetched")


def in_paths(part: WeightPart, files: Mapping[str, T]) -> dict[str, T]:
    """The files of a repository that lie in a part's own folders there, by their names below those."""
    found: dict[str, T] = {}
    for path in part.paths:
        prefix = f"{path}/" if path else ""
        found |= {name[len(prefix) :]: file for name, file in files.items() if name.startswith(prefix)} | found
    return found


def choose(names: list[str]) -> set[str]:
    """The files that a model is loaded from: its safetensors, or where it has none its pickled weights.

    Raises: ModelError for a name that would leave its folder, or where there are none.
    """
    check_names(names)
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(WEIGHTS)] or [name for name in top if name.endswith(PICKLED)]
    if not weights:
        raise ModelError("the repository has no weights", "its layout has changed: fetch them by hand")
    return {*weights, *(name for name in top if name in WANTED)}


def fetch(file: File, folder: Path, advance: Callable[[int], None]) -> str:
    """Fetch a file, from where an earlier try was cut; its SHA-256 in hexadecimal. Raises: ModelError, OutputError.

    advance: called with the bytes that came.
    """
    path = folder / file.place
    part = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(file, part, advance)
        found = _checked(file, part)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "free some space, or --folder") from error
    return found


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """What a server or the way to it gets wrong, in one line; what a disk does is left as it is. Raises: ModelError."""
    try:
        with silenced():
            yield
    except Exception as error:  # the client's own, those of its transport, and what it makes of an odd answer
        if isinstance(error, PavdmError) or getattr(error, "errno", None):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = NETWORK
        if "offline mode is enabled" in str(error):
            reason, hint = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE for this command: it needs the network"
        if (answer := getattr(error, "response", None)) is not None:
            reason = f"{answer.status_code} {answer.reason_phrase}"
            hint = ACCESS if answer.status_code in (401, 403) else AGAIN
        raise ModelError(f"cannot fetch {url}: {reason}", hint) from error


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def hash_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blob_of(path: Path) -> str:
    """What git calls a file's contents: SHA-1, in hexadecimal, of their size and themselves."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % size_of(path))).hexdigest()


def free_space(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


class _Bar:
    """Stands for the bar that the client would draw."""

    def __init__(self, advance: Callable[[int], None], **about: object) -> None:
        self.update = advance

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _append(file: File, part: Path, advance: Callable[[int], None]) -> None:
    """Fetch what is missing. The client's own download would start again; its transfer goes on from a size."""
    get = import_library("huggingface_hub.file_download").http_get
    headers = import_library("huggingface_hub.utils").build_hf_headers
    have = max(0, size_of(part))
    if have > file.size:
        part.unlink()
        have = 0
    if have < file.size or not have:
        with part.open("ab") as out, reaching(file.url):
            get(file.url, out, resume_size=have, headers=headers(), tqdm_class=partial(_Bar, advance))


def _checked(file: File, part: Path) -> str:
    """The hash of what was fetched; what is not the published file goes. Raises: ModelError."""
    found = hash_of(part)
    if part.stat().st_size != file.size or not file.is_published(part, found):
        part.unlink()
        raise ModelError(f"{file.url} came broken: its hash is {found[:16]}...", "run the command again")
    return found
