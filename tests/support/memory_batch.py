"""A batch of one prompt in an object store in memory: its objects, and what it renders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pavdm_cli.generation import write
from support.command import QUICK, CommandResult, pavdm

URL = "memory://bucket/videos"
OBJECTS = "/bucket/videos"
PROMPT = "a red ball over green hills at noon"
PARTS = "0001-a-red-ball-over-green-hills-at-noon-0.partial.mp4"
NAME = "0001-a-red-ball-over-green-hills-at-noon-0.mp4"
FRAMES = 34  # 9 chunks, two segments


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has a file of jobs, and the store in memory nothing but the test's; applies where imported."""
    MemoryFileSystem.store.clear()
    monkeypatch.chdir(tmp_path)
    Path("jobs.txt").write_text(PROMPT)
    yield
    MemoryFileSystem.store.clear()


def batch(*words: object, folder: str = URL) -> CommandResult:
    length = () if "--frames" in words else ("--frames", FRAMES)
    return pavdm("batch", "jobs.txt", "-d", folder, *length, *QUICK, *words)


def objects() -> dict[str, bytes]:
    """All objects except those of the queue."""
    names = {name: name.removeprefix(f"{OBJECTS}/") for name in MemoryFileSystem.store}
    return {
        short: MemoryFileSystem.store[name].getvalue()
        for name, short in names.items()
        if not short.startswith(".queue")
    }


def count_chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the frames of every chunk that is rendered."""
    rendered, plain = list[int](), write.write_chunks

    def count(run: Any, chunks: Any, *rest: Any) -> Iterator[int]:
        def counted() -> Iterator[Any]:
            for chunk in chunks:
                rendered.append(len(chunk.frames))
                yield chunk

        return plain(run, counted(), *rest)

    monkeypatch.setattr(write, "write_chunks", count)
    return rendered
