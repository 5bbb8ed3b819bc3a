"""Downloads published weights: lists the files of repositories, resumes downloads, and checks hashes."""

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
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs

if TYPE_CHECKING:
    from pavdm_cli.models.spec import WeightPart

T = TypeVar("T")
ENDPOINT = "https://huggingface.co"
RETRY = "downloaded data is kept: run the command again to continue"
NETWORK = f"check the network connection, or the proxy in HTTPS_PROXY; {RETRY}"
ACCESS = "accept the terms on the repository's page, then run `hf auth login` or set HF_TOKEN"
UNFINISHED = ".part"
EXTRA_FILES = ("config.json", "spiece.model")
WEIGHTS, PICKLED = (".safetensors", ".safetensors.index.json"), (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file, and its path in the model's folder."""

    path: str  # with forward slashes
    url: str
    size: int  # bytes
    sha256: str  # empty if the repository only has git's hash
    blob: str = ""  # git's hash of its contents, for a file outside LFS

    @property
    def commit(self) -> str:
        """Of its repository."""
        return self.url.partition("/resolve/")[2].partition("/")[0]

    def is_in(self, folder: Path) -> bool:
        """Whether the folder has it, by its size."""
        return size_of(folder / self.path) == self.size

    def is_published(self, path: Path, sha256: str) -> bool:
        """Whether a local file is this one, by the hashes of the repository."""
        return self.sha256 in ("", sha256) and (not self.blob or self.blob == git_blob_of(path))

    def remaining(self, folder: Path) -> int:
        """Bytes still to download."""
        return 0 if self.is_in(folder) else self.size - max(0, size_of(folder / f"{self.path}{UNFINISHED}"))


def list_files(part: WeightPart, endpoint: str = ENDPOINT) -> list[RemoteFile]:
    """The files of a part in its repository. Raises: ModelError."""
    url_of = import_library("huggingface_hub.file_download").hf_hub_url
    with network_errors(f"{endpoint}/{part.repo}"):
        api = import_library("huggingface_hub.hf_api").HfApi(endpoint)
        info = api.model_info(part.repo, revision=part.revision, files_metadata=True)
    try:
        check_names([file.rfilename for file in info.siblings])
        files = in_paths(part, {file.rfilename: file for file in info.siblings})
        selected_names = select_files([*files])
        return [
            RemoteFile(
                f"{part.folder}/{name}",
                url_of(part.repo, file.rfilename, revision=info.sha, endpoint=endpoint),
                int(file.size),
                *_hashes(name, file),
            )
            for name, file in files.items()
            if name in selected_names
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{endpoint} did not list the files of {part.repo}", RETRY) from error


def _hashes(name: str, file: Any) -> tuple[str, str]:
    """SHA-256 and git's hash of a listed file, one of them empty: in LFS, git's is only that of a pointer."""
    hashes = (file.lfs.sha256, "") if file.lfs else ("", file.blob_id)
    if not any(hashes):
        raise ModelError(
            f"the repository has no hash for {name}, so a download cannot be verified", "download it manually"
        )
    return hashes


def check_names(names: Iterable[str]) -> None:
    """Reject a name that would leave its folder. Raises: ModelError."""
    for name in names:
        outside = ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name or ":" in name
        if outside or not name.isprintable():
            raise ModelError(f"a published file is called {name!r}, which leaves its folder", "nothing was downloaded")


def in_paths(part: WeightPart, files: Mapping[str, T]) -> dict[str, T]:
    """The files in a part's folders of a repository, by their names in those."""
    matches: dict[str, T] = {}
    for path in part.paths:
        prefix = f"{path}/" if path else ""
        matches |= {name[len(prefix) :]: file for name, file in files.items() if name.startswith(prefix)} | matches
    return matches


def select_files(names: list[str]) -> set[str]:
    """The files that a model is loaded from: safetensors, or pickled weights if there are none.

    Raises: ModelError for a name that would leave its folder, or if there are no weights.
    """
    check_names(names)
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(WEIGHTS)] or [name for name in top if name.endswith(PICKLED)]
    if not weights:
        raise ModelError("the repository has no weights", "its layout has changed: download them manually")
    return {*weights, *(name for name in top if name in EXTRA_FILES)}


def download(file: RemoteFile, folder: Path, report: Callable[[int], None]) -> str:
    """Download a file, resuming an earlier attempt; returns its SHA-256. Raises: ModelError, OutputError.

    report: called with the number of bytes received.
    """
    path = folder / file.path
    part = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(file, part, report)
        sha256 = _verify(file, part)
        os.replace(part, path)
    except OSError as error:
        hint = "free some space, or choose another --folder"
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint) from error
    return sha256


@contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn errors of the network or the server into one line; errors of the disk pass through. Raises: ModelError."""
    try:
        with suppress_logs():
            yield
    except Exception as error:  # of the client, of its transport, or from an unexpected response
        if isinstance(error, PavdmError) or getattr(error, "errno", None):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = NETWORK
        if "offline mode is enabled" in str(error):
            reason, hint = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE for this command: it needs the network"
        if (response := getattr(error, "response", None)) is not None:
            reason = f"{response.status_code} {response.reason_phrase}"
            hint = ACCESS if response.status_code in (401, 403) else RETRY
        raise ModelError(f"cannot download {url}: {reason}", hint) from error


def size_of(path: Path) -> int:
    """Size of a file in bytes; -1 if there is none."""
    return path.stat().st_size if path.is_file() else -1


def sha256_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_of(path: Path) -> str:
    """git's hash of a file: SHA-1 of its size and contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % size_of(path))).hexdigest()


def free_space(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


class _ProgressBar:
    """Replaces the progress bar of the client."""

    def __init__(self, report: Callable[[int], None], **options: object) -> None:
        self.update = report

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _append(file: RemoteFile, part: Path, report: Callable[[int], None]) -> None:
    """Download the missing bytes with the client's transfer function, since its download function would start again."""
    get = import_library("huggingface_hub.file_download").http_get
    headers = import_library("huggingface_hub.utils").build_hf_headers
    num_received = max(0, size_of(part))
    if num_received > file.size:
        part.unlink()
        num_received = 0
    if num_received < file.size or not num_received:
        with part.open("ab") as out, network_errors(file.url):
            get(file.url, out, resume_size=num_received, headers=headers(), tqdm_class=partial(_ProgressBar, report))


def _verify(file: RemoteFile, part: Path) -> str:
    """The SHA-256 of a download, which is deleted unless it is the published file. Raises: ModelError."""
    sha256 = sha256_of(part)
    if part.stat().st_size != file.size or not file.is_published(part, sha256):
        part.unlink()
        raise ModelError(f"{file.url} is corrupt: its hash is {sha256[:16]}...", "run the command again")
    return sha256
