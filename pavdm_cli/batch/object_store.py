"""Objects under a URL (S3, GCS, Azure, ...), which can be written as a whole but neither appended to nor renamed.

This is the only module that imports fsspec.
"""

from __future__ import annotations

import errno
import filecmp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from pavdm_cli.batch.remote_video import RemoteVideo, parts_folder
from pavdm_cli.errors import OutputError, PavdmError, UsageError
from pavdm_cli.runtime.printable import printable

if TYPE_CHECKING:
    from pavdm_cli.batch.store import VideoLocation

RETRY_HINT = "what was rendered is stored: run the same command to continue"


def open_object_store(url: str) -> ObjectStore:
    """The store of a URL, which is not accessed yet. Raises: UsageError."""
    protocol, _, path = url.partition("://")
    url = f"{protocol}://{path.rstrip('/')}"
    if protocol not in {*known_implementations, *fsspec.available_protocols()}:
        hint = "name a folder, or a URL that fsspec supports, such as s3://bucket/folder"
        raise UsageError(f"unsupported URL scheme: {protocol}://", hint)
    try:
        system, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError:
        package = known_implementations[protocol]["class"].partition(".")[0]
        raise UsageError(f"{protocol}:// needs {package}", f"pip install {package}") from None
    except Exception as error:  # every implementation has its own
        raise UsageError(f"cannot use {printable(url)}: {_reason(error)}", "check the URL") from None
    if not root.strip("/"):
        raise UsageError(f"{protocol}:// names no bucket or folder", f"write {protocol}://bucket/folder")
    return ObjectStore(url, system, root.rstrip("/"))


class ObjectStore:
    """Objects under a URL. A video is stored in parts while it grows; its last state refers to all of them."""

    poll = 2.0
    access_hint = "check the name of the bucket, and that your credentials may write to it"

    def __init__(self, url: str, system: Any, root: str) -> None:
        """system: fsspec's file system; root: the URL's path in it."""
        self.url, self._system, self._root = url, system, root

    @property
    def is_shared(self) -> bool:
        return not isinstance(self._system, MemoryFileSystem)

    def location(self, name: str) -> str:
        return f"{self.url}/{name}"

    def prepare(self, folders: tuple[str, ...]) -> None:
        """Folders are not needed."""

    def read(self, name: str) -> bytes:
        with _as_os_error():
            return bytes(self._system.cat_file(self._path(name)))

    def create(self, name: str, data: bytes) -> bool:
        try:
            with _as_os_error():
                self._system.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        with _as_os_error():
            self._system.pipe_file(self._path(name), data)

    def remove(self, name: str) -> None:
        try:
            with _as_os_error():
                self._system.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def exists(self, name: str) -> bool:
        try:
            with _as_os_error():
                return bool(self._system.info(self._path(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def modified_time(self, name: str) -> float:
        with _as_os_error():
            return float(self._system.modified(self._path(name)).timestamp())

    def touch(self, name: str) -> float:
        self.replace(name, self.read(name))
        return self.modified_time(name)

    def names(self, folder: str) -> list[str]:
        try:
            with _as_os_error():
                entries = self._system.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]

    def has_parts(self, video: str) -> bool:
        return bool(self.names(parts_folder(video)))

    def discard(self, video: str) -> None:
        folder = parts_folder(video)
        for name in self.names(folder):
            self.remove(f"{folder}/{name}")

    def upload(self, file: Path, name: str) -> None:
        """Store a file of any size under a name that others see once it is complete."""
        with _as_os_error():
            self._system.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> None:
        """Copy an object of any size to a file."""
        with _as_os_error():
            self._system.get_file(self._path(name), str(file))

    @contextmanager
    def open_video(self, video: str, attempt: int, force: bool) -> Iterator[VideoLocation]:
        """In a temporary folder; errors name the object instead of the file in it."""
        with TemporaryDirectory(prefix="pavdm-") as folder:
            location = RemoteVideo(self, Path(folder) / video, attempt, force)
            location.download()
            try:
                yield location
            except PavdmError as error:
                if location.error:
                    raise OutputError(f"cannot write {self.location(video)}: {location.error}", RETRY_HINT) from None
                if folder not in error.as_line():
                    raise
                raise type(error)(error.message.replace(folder, self.url), RETRY_HINT) from None

    def is_equal(self, name: str, file: Path) -> bool:
        """Whether an object has the contents of a file."""
        copy = file.with_name(f"{file.name}.stored")
        self.download(name, copy)
        try:
            return filecmp.cmp(copy, file, shallow=False)
        finally:
            copy.unlink()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Errors of a store's client, which has its own kinds, as OSError with a reason."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, _reason(error)) from error
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, _reason(error)) from error
    except Exception as error:
        raise OSError(getattr(error, "errno", None) or 0, _reason(error)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or printable(str(error).partition("\n")[0]) or type(error).__name__
