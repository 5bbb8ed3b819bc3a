"""A video that is rendered in a temporary folder and stored in parts after every chunk.

In the folder NAME.partial.mp4 of the store: `init.mp4`, the header, and `000001.m4s`, `000002.m4s`, ..., closed
segments, which play together; at last `state.1`, the checkpoint with a list of these parts. The number of the attempt
is a fencing token: no attempt writes an object of another one, since from the second on its parts are called
`000003.2.m4s`, its state `state.2`. The state with the highest number counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import OutputError
from pavdm_cli.generation.checkpoint_writer import SavedFiles
from pavdm_cli.runtime.untrusted import InvalidError, parse_json
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path
from pavdm_cli.video.write.segment import header_size

if TYPE_CHECKING:
    from pavdm_cli.batch.object_store import ObjectStore

VIDEO, LATENTS = "video", "latents"  # the files that grow
STATE = "state."  # a state's name, before the number of its attempt


def parts_folder(video: str) -> str:
    """Where the parts of a video are."""
    return partial_path(Path(video)).name


class RemoteVideo:
    """A video that an attempt renders, and its parts in the store."""

    def __init__(self, store: ObjectStore, path: Path, attempt: int, force: bool) -> None:
        """path: in the temporary folder."""
        self.path, self.error = path, ""  # why storing failed
        self._store, self._attempt, self._force = store, attempt, force
        self._files = {VIDEO: partial_path(path), LATENTS: latents_path(partial_path(path))}
        self._folder = parts_folder(path.name)
        self._start_again()

    def download(self) -> None:
        """Get what earlier attempts left: a state with all its parts, else the complete video. Raises: OSError."""
        names = self._store.names(self._folder)
        numbers = sorted(int(name.removeprefix(STATE)) for name in names if _is_state(name))
        for number in reversed(numbers):
            with suppress(FileNotFoundError, InvalidError):
                return self._download_state(f"{STATE}{number}")
        self._start_again()
        if not self._force and self._store.exists(self.path.name):  # its attempt was killed before it recorded that
            self._store.download(self.path.name, self.path)

    def on_saved(self, files: SavedFiles) -> None:
        """Store new parts, then the state. Raises: OSError."""
        if not files.is_resumed and self._is_resumed:  # the parts could not be continued
            self._start_again()
        try:
            self._append(VIDEO, files.size)
            self._append(LATENTS, files.latents_bytes)
            header = json.dumps({"attempt": self._attempt, "parts": self._parts}).encode()
            state = header + b"\n" + checkpoint_path(self._files[VIDEO]).read_bytes()
            self._store.replace(f"{self._folder}/{STATE}{self._attempt}", state)
        except OSError as error:
            self.error = error.strerror or str(error)
            raise

    def publish(self, keep_state: bool) -> None:
        """Store the complete video under its name, and delete the parts. Raises: OutputError."""
        name, partial = self.path.name, self._files[VIDEO]
        try:
            if not self._store.exists(name):
                self._store.upload(self.path, name)
            elif not self._store.is_equal(name, self.path):
                self._replace(name)
            states = (checkpoint_path(partial), latents_path(partial)) if keep_state else ()
            for file in (file for file in states if file.exists()):
                self._store.upload(file, file.name)
            self._store.discard(name)
        except OSError as error:
            message = f"cannot write {self._store.location(name)}: {error.strerror or error}"
            raise OutputError(message, "all frames are stored: run the same command to continue") from None

    def _replace(self, name: str) -> None:
        if not self._force:
            message = f"{self._store.location(name)} appeared during the run and was not replaced"
            raise OutputError(message, "move it, or use --force to replace existing files")
        self._store.upload(self.path, name)

    def _start_again(self) -> None:
        self._parts: dict[str, list[str]] = {VIDEO: [], LATENTS: []}
        self._sizes = {VIDEO: 0, LATENTS: 0}
        self._is_resumed = False

    def _append(self, kind: str, size: int) -> None:
        """Store what was appended to a file."""
        begin = self._sizes[kind]
        if size == begin:
            return
        with self._files[kind].open("rb") as file:
            file.seek(begin)
            data = file.read(size - begin)
        for name, part in self._split(kind, data):
            self._store.replace(f"{self._folder}/{name}", part)
            self._parts[kind].append(name)
        self._sizes[kind] = size

    def _split(self, kind: str, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Names and contents of new parts; the first bytes of a video are its header."""
        suffix, tag = self.path.suffix.lower(), f".{self._attempt}" if self._attempt > 1 else ""
        number = len(self._parts[kind])
        if kind == LATENTS:
            yield f"{number + 1:06}{tag}.latents", data
            return
        if not number:
            size = header_size(data, suffix)
            yield f"init{tag}{suffix}", data[:size]
            data, number = data[size:], 1
        yield f"{number:06}{tag}{'.m4s' if suffix == '.mp4' else suffix}", data

    def _download_state(self, name: str) -> None:
        """Write the files of a state. Raises: OSError, FileNotFoundError if a part is missing, InvalidError."""
        header, separator, checkpoint = self._store.read(f"{self._folder}/{name}").partition(b"\n")
        parts = _parts(parse_json(header.decode(errors="replace")) if separator else None)
        for kind, file in self._files.items():
            with file.open("wb") as target:
                for part in parts[kind]:
                    target.write(self._store.read(f"{self._folder}/{part}"))
                self._sizes[kind] = target.tell()
            if not parts[kind]:
                file.unlink()
        checkpoint_path(self._files[VIDEO]).write_bytes(checkpoint)
        self._parts, self._is_resumed = parts, True


def _is_state(name: str) -> bool:
    return name.startswith(STATE) and name.removeprefix(STATE).isdecimal()


def _parts(header: Any) -> dict[str, list[str]]:
    """The names of the parts in a state's header. Raises: InvalidError."""
    parts = header.get("parts") if isinstance(header, dict) else None
    if not isinstance(parts, dict) or parts.keys() != {VIDEO, LATENTS}:
        raise InvalidError("it lists no parts")
    for names in parts.values():
        if not isinstance(names, list) or not all(isinstance(name, str) and "/" not in name for name in names):
            raise InvalidError("a part has no name")
    return parts
