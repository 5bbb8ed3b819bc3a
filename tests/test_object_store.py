"""A batch in an object store: the same videos as in a folder, continued from parts after a kill, none twice."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.memory_batch import NAME, OBJECTS, PARTS, PROMPT, URL, batch, count_chunks, here, objects  # noqa: F401
from support.requests import make_request

from pavdm_cli.batch.job import Job
from pavdm_cli.batch.object_store import ObjectStore, open_object_store
from pavdm_cli.batch.owner import Owner
from pavdm_cli.batch.queue import Attempt, JobStatus, Queue, open_queue
from pavdm_cli.batch.render import ModelCache
from pavdm_cli.batch.store import FileStore, VideoLocation, open_store
from pavdm_cli.batch.worker import Listener, perform
from pavdm_cli.commands import batch_ray
from pavdm_cli.errors import OutputError
from pavdm_cli.generation.checkpoint_writer import SavedFiles
from pavdm_cli.generation.request import Request
from pavdm_cli.runtime.signals import Stop
from pavdm_cli.video.paths import checkpoint_path, partial_path


def test_objects_equal_the_files_of_a_folder() -> None:
    words = ("--frames", 6, "--keep-state")
    assert batch(*words, folder="folder").code == 0
    code, out, err = batch(*words)
    assert code == 0, err
    assert out.split() == [f"{URL}/{NAME}"]
    files = {path.name: path.read_bytes() for path in Path("folder").iterdir() if path.is_file()}
    assert objects().keys() == files.keys() == {NAME, f"{PARTS}.state", f"{PARTS}.latents"}
    assert [name for name in (NAME, f"{PARTS}.latents") if objects()[name] != files[name]] == []
    code, out, _ = batch(*words, "--json")
    (row,) = json.loads(out)["jobs"]
    assert (code, row["state"], row["path"]) == (0, "done", f"{URL}/{NAME}")


def request(**values: Any) -> Request:
    fixed = {"steps": 6, "warmup": 0, "scale": 1, "threads": 1, "device": "cpu"}
    return make_request(PROMPT, seed=0, **fixed | values)


def claim(store: ObjectStore, frames: int) -> tuple[Queue, Job, Attempt]:
    queue, job = open_queue(store), Job(NAME, "jobs.txt:1", request(frames=frames))
    queue.add(job)
    attempt = queue.claim(NAME, queue.status(NAME), threads=1)
    assert attempt
    return queue, job, attempt


def test_an_attempt_that_is_overtaken_stops_after_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered, replace = count_chunks(monkeypatch), ObjectStore.replace
    queue, job, attempt = claim(open_object_store(URL), frames=16)
    states: list[bytes] = []

    def overtake(store: ObjectStore, name: str, data: bytes) -> None:
        replace(store, name, data)
        if "/state." in name:
            states.append(data)
        if len(states) == 2 and "/state." in name:  # another process takes the job over
            time.sleep(1)  # a slow store: meanwhile no chunk is begun
            assert queue.claim(NAME, JobStatus("queued", attempt), threads=1)

    monkeypatch.setattr(ObjectStore, "replace", overtake)
    perform(queue, job, attempt, ModelCache(), Stop(interruptible=False), Listener())
    assert len(rendered) == 3  # the last one is rendered by the other process too
    assert len(states) == 2
    assert objects()[f"{PARTS}/state.1"] == states[-1]
    assert NAME not in objects()
    assert queue.status(NAME).attempt.number == 2


def test_a_store_that_fails_is_one_line_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, job, attempt = claim(open_object_store(URL), frames=8)
    failures, pipe_file = [], MemoryFileSystem.pipe_file

    def fail(system: MemoryFileSystem, path: str, *rest: Any, **options: Any) -> None:
        if "/state." in path and f"{OBJECTS}/{PARTS}/state.1" in system.store:
            failures.append(path)
            raise TypeError("the bucket is gone")  # clients have errors of their own
        pipe_file(system, path, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    perform(queue, job, attempt, ModelCache(), Stop(interruptible=False), Listener())
    monkeypatch.undo()
    assert len(failures) == 1
    last = queue.status(NAME).attempt
    assert last is not None
    assert last.error.startswith(f"cannot write {URL}/{NAME}: the bucket is gone; what was rendered is stored")
    assert [*objects()] == [f"{PARTS}/state.1"]


def test_a_foreign_video_that_appears_is_not_replaced() -> None:
    store = open_object_store(URL)
    with store.open_video(NAME, 1, force=False) as video:
        video.path.write_bytes(b"ours")
        store.replace(NAME, b"theirs")
        with pytest.raises(OutputError, match="appeared during the run and was not replaced"):
            video.publish(keep_state=False)
        store.replace(NAME, b"ours")  # by an attempt that was killed before it said so
        video.publish(keep_state=False)
    with store.open_video(NAME, 2, force=True) as video:
        assert not video.path.exists()
        video.path.write_bytes(b"new")
        video.publish(keep_state=False)
    assert objects() == {NAME: b"new"}


def saved(video: VideoLocation, checkpoint: bytes, size: int, resumed: bool) -> None:
    checkpoint_path(partial_path(video.path)).write_bytes(checkpoint)
    assert video.on_saved
    video.on_saved(SavedFiles(size=size, latents_bytes=0, is_resumed=resumed))


def test_a_stale_attempt_never_harms_the_parts_of_a_newer_one() -> None:
    store, header, body = open_object_store(URL), b"\0\0\0\x08moov", b"\0\0\0\x09moof"
    with store.open_video(NAME, 1, force=False) as stale:
        partial_path(stale.path).write_bytes(header + body + b"1")
        saved(stale, b"one", 17, resumed=False)
        with store.open_video(NAME, 2, force=False) as newer:
            assert partial_path(newer.path).read_bytes() == header + body + b"1"
            partial_path(newer.path).write_bytes(header + body + b"122")
            saved(newer, b"two", 19, resumed=True)
            partial_path(stale.path).write_bytes(header + body + b"1stale")
            saved(stale, b"stale", 22, resumed=False)
    with store.open_video(NAME, 3, force=False) as last:
        assert partial_path(last.path).read_bytes() == header + body + b"122"
        assert checkpoint_path(partial_path(last.path)).read_bytes() == b"two"
    assert [name.partition("/")[2] for name in sorted(objects())] == [
        "000001.m4s", "000002.2.m4s", "000002.m4s", "init.mp4", "state.1", "state.2",
    ]  # fmt: skip


def test_a_render_that_starts_again_lists_its_own_parts_alone() -> None:
    store, header, body = open_object_store(URL), b"\0\0\0\x08moov", b"\0\0\0\x09moof"
    with store.open_video(NAME, 1, force=False) as video:
        partial_path(video.path).write_bytes(header + body + b"1")
        saved(video, b"one", 17, resumed=False)
    with store.open_video(NAME, 2, force=False) as video:
        partial_path(video.path).write_bytes(header + body + b"2")
        saved(video, b"two", 17, resumed=False)
    with store.open_video(NAME, 3, force=False) as video:
        assert partial_path(video.path).read_bytes() == header + body + b"2"


@pytest.mark.parametrize("state", [b"", b"{}\nx", b'{"parts": {"video": [1], "latents": []}}\nx', b"[" * 9999])
def test_a_damaged_state_gives_way_to_the_one_before(state: bytes) -> None:
    store = open_object_store(URL)
    with store.open_video(NAME, 1, force=False) as video:
        saved(video, b"one", 0, resumed=False)
    store.replace(f"{PARTS}/state.2", state)
    store.replace(f"{PARTS}/state.3", b'{"parts": {"video": ["lost.m4s"], "latents": []}}\nx')
    with store.open_video(NAME, 4, force=False) as video:
        assert checkpoint_path(partial_path(video.path)).read_bytes() == b"one"


def test_a_claim_that_two_processes_won_belongs_to_the_last() -> None:
    store = open_object_store(URL)
    first, second = open_queue(store), replace(open_queue(store), owner=Owner("another machine", 1, 5.0))
    attempt = first.claim(NAME, first.status(NAME), threads=1)
    assert attempt
    assert first.renew(NAME, attempt)
    store.remove(f".queue/attempts/{NAME}.1.json")  # as if the store had not seen it yet
    assert second.claim(NAME, JobStatus("queued"), threads=1)
    assert not first.renew(NAME, attempt)


@pytest.mark.parametrize(("url", "error", "hint"), [
    ("nonesuch://bucket", "unsupported URL scheme: nonesuch://", "such as s3://bucket/folder"),
    ("gs://bucket", "gs:// needs gcsfs", "pip install gcsfs"),
])  # fmt: skip
def test_a_url_that_cannot_be_used_is_rejected_first(url: str, error: str, hint: str) -> None:
    code, out, err = batch(folder=url)
    assert (code, out) == (2, "")
    assert error in err
    assert hint in err


@pytest.mark.parametrize("words", [("--engine", "ray"), ("--workers", "2")])
def test_several_processes_cannot_share_the_memory_of_one(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_ray.importlib.util, "find_spec", lambda name: object())  # as if ray were installed
    code, out, err = batch(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert f"cannot write to {URL}, which lives in a single process" in err.splitlines()[0]
    assert not MemoryFileSystem.store


def test_a_store_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ValueError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    code, out, err = batch()
    assert (code, out) == (4, "")
    assert err.splitlines()[0] == f"error: cannot write in {URL}/: no credentials"


def test_file_urls_are_folders(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}") == FileStore(tmp_path) == open_store(tmp_path)
