"""Published weights from their repositories to a folder: listed, fetched from where they were cut, checked by hash."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from pavdm_cli.errors import ModelError, OutputError
from pavdm_cli.specs import Part

ENDPOINT = "https://huggingface.co"
AGAIN = "what is there is kept: run the command again to go on"
BLOCK = 1 << 20  # bytes
TRIES = 4
UNFINISHED = ".part"
WANTED = ("config.json", "spiece.model")
WEIGHTS, PICKLED = (".safetensors", ".safetensors.index.json"), (".bin", ".pt", ".pth")
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass(frozen=True, slots=True)
class File:
    """A published file and where it goes."""

    place: str  # below the model's folder, with forward slashes
    url: str
    size: int  # bytes
    sha256: str  # empty where the repository does not give it

    def is_in(self, folder: Path) -> bool:
        """Whether it is there, by its size."""
        return size_of(folder / self.place) == self.size

    def left(self, folder: Path) -> int:
        """Bytes still to fetch."""
        return 0 if self.is_in(folder) else self.size - max(0, size_of(folder / f"{self.place}{UNFINISHED}"))


def listing(part: Part, endpoint: str = ENDPOINT) -> list[File]:
    """What is needed of a part's repository, at one commit. Raises: ModelError."""
    about = _json(f"{endpoint}/api/models/{part.repo}/revision/{quote(part.revision, safe='')}?blobs=true")
    try:
        commit, siblings = str(about["sha"]), [(str(file["rfilename"]), file) for file in about["siblings"]]
        chosen = choose([name for name, _ in siblings])
        return [
            File(
                f"{part.folder}/{name}",
                f"{endpoint}/{part.repo}/resolve/{quote(commit)}/{quote(name)}",
                int(file["size"]),
                str((file.get("lfs") or {}).get("sha256", "")),
            )
            for name, file in siblings
            if name in chosen
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{endpoint} gave no list of {part.repo}'s files", AGAIN) from error


def choose(names: list[str]) -> set[str]:
    """The files that a model is loaded from: its safetensors, or where it has none its pickled weights.

    Raises: ModelError for a name that would leave its folder.
    """
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name or ":" in name:
            raise ModelError(f"a published file is called {name!r}, which leaves its folder", "nothing was fetched")
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(WEIGHTS)] or [name for name in top if name.endswith(PICKLED)]
    if not weights:
        raise ModelError("the repository has no weights", "its layout has changed: fetch them by hand")
    return {*weights, *(name for name in top if name in WANTED)}


def fetch(
    file: File, folder: Path, advance: Callable[[int], None], pause: Callable[[float], None] | None = None
) -> str:
    """Fetch a file, from where an earlier try was cut; its SHA-256 in hexadecimal. Raises: ModelError, OutputError.

    advance: called with the bytes that came. pause: waits for so many seconds before another try.
    """
    path = folder / file.place
    part = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for tried in range(TRIES):
            try:
                _append(file, part, advance)
                break
            except BROKEN as error:
                if isinstance(error, urllib.error.HTTPError) or tried + 1 == TRIES:
                    raise ModelError(f"cannot fetch {file.url}: {_reason(error)}", AGAIN) from error
                (pause or time.sleep)(2.0**tried)
        found = _checked(file, part)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "free some space, or --folder") from error
    return found


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def hash_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_space(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _append(file: File, part: Path, advance: Callable[[int], None]) -> None:
    have = max(0, size_of(part))
    if have > file.size:
        part.unlink()
        have = 0
    if have == file.size:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        goes_on = have and answer.status == 206
        with part.open("ab" if goes_on else "wb") as out:
            for block in _blocks(answer):
                out.write(block)
                advance(len(block))
    if part.stat().st_size < file.size:
        raise ConnectionError("the connection was cut")


def _blocks(answer: Any) -> Iterator[bytes]:
    while block := answer.read(BLOCK):
        yield block


def _checked(file: File, part: Path) -> str:
    """The hash of what was fetched; what is not the published file goes. Raises: ModelError."""
    found = hash_of(part)
    if part.stat().st_size != file.size or file.sha256 not in ("", found):
        part.unlink()
        raise ModelError(f"{file.url} came broken: its hash is {found[:16]}...", "run the command again")
    return found


def _json(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ModelError(f"no address of a repository: {url}", f"HF_ENDPOINT is {ENDPOINT} unless set")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = json.load(answer)
    except BROKEN as error:
        raise ModelError(f"cannot reach {url}: {_reason(error)}", AGAIN) from error
    except ValueError as error:
        raise ModelError(f"{url} gave no JSON", AGAIN) from error
    return found if isinstance(found, dict) else {}


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error or type(error).__name__)
