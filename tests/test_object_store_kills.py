"""Killed renders in an object store: the next process continues them to the same bytes."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.command import QUICK, pavdm
from support.memory_batch import FRAMES, NAME, PARTS, PROMPT, URL, batch, count_chunks, here, objects  # noqa: F401
from support.objects import install
from support.processes import start

from pavdm_cli.batch.object_store import ObjectStore

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a batch writes to a folder, by suffix."""
    folder = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for suffix in (".mp4", ".webm", ".gif"):
            words = () if suffix == ".mp4" else ("-o", f"v{suffix}")
            assert (
                pavdm("generate", PROMPT, "--seed", 0, "--frames", FRAMES, *QUICK, *(words or ("-o", "v.mp4"))).code
                == 0
            )
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


class Cuts:
    """What a kill would leave in the store after each of its states."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stores: list[dict[str, Any]] = []
        replace = ObjectStore.replace

        def replace_and_copy(store: ObjectStore, name: str, data: bytes) -> None:
            replace(store, name, data)
            if "/state." in name:
                self.stores.append({path: copy.deepcopy(file) for path, file in MemoryFileSystem.store.items()})

        monkeypatch.setattr(ObjectStore, "replace", replace_and_copy)

    def restore(self, number: int) -> None:
        """The store after a kill, whose process is gone."""
        MemoryFileSystem.store.clear()
        for path, file in self.stores[number].items():
            data = file.getvalue()
            if "/attempts/" in path:
                fields = json.loads(data)
                data = json.dumps(fields | {"owner": fields["owner"] | {"pid": 2**22 + 1}}).encode()
            fsspec.filesystem("memory").pipe_file(path, data)


def test_a_growing_video_is_a_header_and_segments(expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = Cuts(monkeypatch)
    assert batch().code == 0
    cuts.restore(-1)
    stored = objects()
    assert sorted(stored) == [f"{PARTS}/{name}" for name in ("000001.m4s", "init.mp4", "state.1")]
    Path("playable.mp4").write_bytes(stored[f"{PARTS}/init.mp4"] + stored[f"{PARTS}/000001.m4s"])
    code, out, _ = pavdm("info", "playable.mp4", "--json")
    assert (code, json.loads(out)["frames_in_file"]) == (0, 24)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_killed_render_continues_to_the_same_bytes(
    suffix: str, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("jobs.jsonl").write_text(json.dumps({"prompt": PROMPT, "output": f"v{suffix}"}))
    words = ("batch", "jobs.jsonl", "-d", URL, "--frames", FRAMES, *QUICK)
    with pytest.MonkeyPatch.context() as patch:
        cuts = Cuts(patch)
        assert pavdm(*words).code == 0
    rendered, chunks = count_chunks(monkeypatch), len(cuts.stores)
    for number in (0, chunks // 2, chunks - 1):
        cuts.restore(number)
        rendered.clear()
        code, _, err = pavdm(*words)
        assert code == 0, err
        assert objects() == {f"v{suffix}": expected[suffix]}
        if suffix != ".gif":  # which is written again from its latents
            assert len(rendered) == chunks - number - 1


def test_two_deaths_in_a_row_lose_nothing(expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = Cuts(monkeypatch)
    assert batch().code == 0
    cuts.restore(1)
    first = len(cuts.stores)
    assert batch().code == 0
    assert any(".2.m4s" in path for path in cuts.stores[-1])
    cuts.restore(first + 5)
    assert batch().code == 0
    assert objects() == {NAME: expected[".mp4"]}


def test_a_killed_process_is_continued_by_another(tmp_path: Path, expected: dict[str, bytes]) -> None:
    environment = os.environ | {"PYTHONPATH": install(tmp_path / "packages")}
    words = ("batch", "jobs.txt", "-d", f"objects://{tmp_path}/bucket", "--frames", FRAMES, *QUICK)
    dying = start(*words, cwd=tmp_path, env=environment)
    state, until = tmp_path / "bucket" / PARTS / "state.1", time.monotonic() + 100
    while not state.exists():
        assert dying.poll() is None, dying.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    dying.kill()
    dying.communicate()
    living = start(*words, cwd=tmp_path, env=environment)
    _, err = living.communicate(timeout=200)
    assert living.returncode == 0, err
    files = {file.name: file for file in (tmp_path / "bucket").iterdir() if file.is_file()}
    assert [*files] == [NAME]
    assert files[NAME].read_bytes() == expected[".mp4"]
