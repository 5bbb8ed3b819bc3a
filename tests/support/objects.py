"""An object store for tests: objects are written as a whole or not at all, and neither appended to nor renamed.

`objects:///FOLDER` keeps them as files in a folder, so that processes share them. fsspec finds the class by the entry
point that `install` writes to a folder on PYTHONPATH.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

ENTRY_POINT = "[fsspec.specs]\nobjects = support.objects:Objects\n"


class Objects(AbstractFileSystem):
    """What object stores have in common, and nothing else."""

    protocol = "objects"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(value)
        if mode == "create":
            try:
                os.link(temporary, file)
            finally:
                temporary.unlink()
        else:
            os.replace(temporary, file)

    def cat_file(self, path: str, **options: Any) -> bytes:
        return Path(path).read_bytes()

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        shutil.copyfile(rpath, lpath)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        size = Path(path).stat().st_size
        return {"name": path, "size": size, "type": "directory" if Path(path).is_dir() else "file"}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        files = [file for file in Path(path).iterdir() if not file.name.startswith(".") or file.is_dir()]
        return [self.info(str(file)) if detail else str(file) for file in files]

    def rm_file(self, path: str) -> None:
        Path(path).unlink()
        with suppress(OSError):  # there are no empty folders
            Path(path).parent.rmdir()

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        raise NotImplementedError(f"objects are not opened, {mode}")

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        raise NotImplementedError("objects are not renamed")


def install(folder: Path) -> str:
    """Make fsspec know the store, here and in processes that have the returned PYTHONPATH."""
    import fsspec

    fsspec.register_implementation("objects", Objects, clobber=True)
    information = folder / "objects_store-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "entry_points.txt").write_text(ENTRY_POINT)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: objects-store\nVersion: 1.0\n")
    return os.pathsep.join([str(folder), *sys.path])
