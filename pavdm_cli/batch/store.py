"""Where a batch has its queue and its videos: a folder of a file system, or objects under a URL."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pavdm_cli.generation.checkpoint_writer import SavedFiles
from pavdm_cli.runtime.untrusted import read_file
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path

LOCAL = "file://"


class VideoLocation(Protocol):
    """Where an attempt renders a video."""

    @property
    def path(self) -> Path:
        """The path of the complete video."""

    @property
    def on_saved(self) -> Callable[[SavedFiles], None] | None:
        """Called after every checkpoint, on the encoder's thread."""

    def publish(self, keep_state: bool) -> None:
        """Give the complete video its name in the store. Raises: OutputError."""


class Store(Protocol):
    """Small files of a queue, and videos. Names are relative, with slashes. Methods raise OSError, or InvalidError."""

    @property
    def poll(self) -> float:
        """Seconds between polls of the queue."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes see its files."""

    @property
    def access_hint(self) -> str:
        """What to do where it cannot be written."""

    def location(self, name: str) -> str:
        """The path or URL of a file, for the user."""

    def prepare(self, folders: tuple[str, ...]) -> None:
        """Make folders where a store needs them."""

    def read(self, name: str) -> bytes:
        """The contents of a file."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; False if it exists. Of many processes that create a file, one succeeds."""

    def replace(self, name: str, data: bytes) -> None:
        """Write a file: others see the old contents or the new ones, never a part."""

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def modified_time(self, name: str) -> float:
        """When a file was last written, in seconds, by the clock of the store."""

    def touch(self, name: str) -> float:
        """Write a file once more, and return when, by the clock of the store."""

    def names(self, folder: str) -> list[str]:
        """Names of all files in a folder, without the folder's."""

    def has_parts(self, video: str) -> bool:
        """Whether an interrupted attempt at a video left something."""

    def discard(self, video: str) -> None:
        """Delete what interrupted attempts at a video left."""

    def open_video(self, video: str, attempt: int, force: bool) -> AbstractContextManager[VideoLocation]:
        """Where an attempt renders a video, with what earlier ones left of it.

        force: an existing video is replaced. Raises: OSError, OutputError.
        """


def open_store(location: str | os.PathLike[str]) -> Store:
    """The store of a folder or a URL. Raises: UsageError for a URL that is not supported."""
    text = os.fspath(location)
    if text.startswith(LOCAL) or "://" not in text:
        return FileStore(Path(text.removeprefix(LOCAL)))
    from pavdm_cli.batch.object_store import open_object_store

    return open_object_store(text)


@dataclass(slots=True)
class LocalVideo:
    """A video that is rendered where it stays."""

    path: Path
    on_saved: Callable[[SavedFiles], None] | None = None

    def publish(self, keep_state: bool) -> None:
        """It has its name already."""


@dataclass(frozen=True, slots=True)
class FileStore:
    """A folder, which may be shared: videos grow in it, as files."""

    folder: Path
    poll: float = 0.5
    is_shared: bool = True
    access_hint: str = "choose another folder"

    def location(self, name: str) -> str:
        return str(self.folder / name)

    def prepare(self, folders: tuple[str, ...]) -> None:
        for name in folders:
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return read_file(self.folder / name)

    def create(self, name: str, data: bytes) -> bool:
        try:
            with (self.folder / name).open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        path = self.folder / name
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_bytes(data)
        os.replace(temporary, path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def modified_time(self, name: str) -> float:
        return (self.folder / name).stat().st_mtime

    def touch(self, name: str) -> float:
        with suppress(OSError):
            os.utime(self.folder / name)
        return self.modified_time(name)

    def names(self, folder: str) -> list[str]:
        return [path.name for path in (self.folder / folder).iterdir()]

    def has_parts(self, video: str) -> bool:
        return any(os.path.lexists(path) for path in self._parts(video))

    def discard(self, video: str) -> None:
        for path in self._parts(video):
            path.unlink(missing_ok=True)

    @contextmanager
    def open_video(self, video: str, attempt: int, force: bool) -> Iterator[VideoLocation]:
        yield LocalVideo(self.folder / video)

    def _parts(self, video: str) -> tuple[Path, ...]:
        partial = partial_path(self.folder / video)
        return partial, checkpoint_path(partial), latents_path(partial)
