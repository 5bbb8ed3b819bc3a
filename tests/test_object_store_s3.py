"""A batch in S3: a server of the protocol, and the client that users have."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.command import QUICK, pavdm
from support.memory_batch import FRAMES, NAME, PARTS, PROMPT
from support.processes import start
from support.requests import make_request

from pavdm_cli.batch.job import Job
from pavdm_cli.batch.object_store import ObjectStore, open_object_store
from pavdm_cli.batch.queue import JobStatus, open_queue
from pavdm_cli.batch.render import ModelCache
from pavdm_cli.batch.worker import Listener, perform
from pavdm_cli.runtime.signals import Stop

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]  # those of the server's libraries
URL = "s3://bucket/videos"
REQUEST = re.compile(r'"(\w+) /bucket/videos/(\S+?)(?:\?\S*)? HTTP/1.1')
NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


@dataclass
class Server:
    """A server with one bucket, and what was asked of it."""

    environment: dict[str, str]
    requests: list[tuple[str, str]]  # method, and name in the store's folder

    def written(self) -> list[str]:
        """Names that were written, in order."""
        return [name for method, name in self.requests if method == "PUT"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    moto = pytest.importorskip("moto.server")
    requests: list[tuple[str, str]] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := REQUEST.search(re.sub("\x1b\\[[0-9;]*m", "", record.getMessage())):
                requests.append((match[1], match[2]))

    recorder, log = Recorder(), logging.getLogger("werkzeug")
    log.addHandler(recorder)
    log.setLevel(logging.INFO)
    running = moto.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    host, port = running.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    yield Server(NOBODY | keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}, requests)
    running.stop()
    log.removeHandler(recorder)


@pytest.fixture(autouse=True)
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, as its client; the current folder has a file of jobs."""
    import s3fs

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("jobs.txt").write_text(PROMPT)
    client = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    if client.exists("bucket"):
        client.rm("bucket", recursive=True)
    client.mkdir("bucket")
    server.requests.clear()
    return client


def objects(bucket: Any) -> dict[str, bytes]:
    """All objects except those of the queue."""
    names = {path: path.removeprefix("bucket/videos/") for path in bucket.find("bucket")}
    return {name: bucket.cat_file(path) for path, name in names.items() if not name.startswith(".queue")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The video in a folder."""
    file = tmp_path_factory.mktemp("folder") / "v.mp4"
    assert pavdm("generate", PROMPT, "--seed", 0, "--frames", FRAMES, *QUICK, "-o", file).code == 0
    return file.read_bytes()


def test_a_killed_worker_is_continued_by_another_to_the_same_bytes(
    server: Server, bucket: Any, tmp_path: Path, expected: bytes
) -> None:
    words = ("batch", "jobs.txt", "-d", URL, "--frames", FRAMES, *QUICK)
    dying = start(*words, cwd=tmp_path)
    until = time.monotonic() + 100
    while f"{PARTS}/init.mp4" not in server.written():
        assert dying.poll() is None, dying.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    dying.kill()
    dying.communicate()
    rendered = server.written().count(f"{PARTS}/state.1")
    assert rendered >= 2  # chunks whose frames are not in a segment yet
    server.requests.clear()
    assert pavdm(*words).code == 0
    assert objects(bucket) == {NAME: expected}
    chunks = server.written().count(f"{PARTS}/state.2")
    assert 9 - rendered - 1 <= chunks <= 9 - rendered  # the one in work at the kill is rendered again
    assert f"{PARTS}/state.1" not in server.written()


def test_a_state_is_written_after_all_parts_that_it_lists(
    server: Server, monkeypatch: pytest.MonkeyPatch, expected: bytes
) -> None:
    states, replace = list[tuple[int, list[str]]](), ObjectStore.replace

    def record(store: ObjectStore, name: str, data: bytes) -> None:
        replace(store, name, data)
        if "/state." in name:
            parts = json.loads(data.partition(b"\n")[0])["parts"]
            states.append((len(server.requests), [f"{PARTS}/{part}" for parts in parts.values() for part in parts]))

    monkeypatch.setattr(ObjectStore, "replace", record)
    code, out, err = pavdm("batch", "jobs.txt", "-d", URL, "--frames", FRAMES, *QUICK)
    assert (code, out.strip()) == (0, f"{URL}/{NAME}"), err
    assert states[-1][1] == [f"{PARTS}/init.mp4", f"{PARTS}/000001.m4s"]
    for count, parts in states:
        before = [name for method, name in server.requests[:count] if method == "PUT"]
        assert before[-1] == f"{PARTS}/state.1"
        assert {*parts} <= {*before[:-1]}
    written = server.written()
    assert written.index(NAME) > max(i for i, name in enumerate(written) if "state" in name)


def test_of_two_processes_one_has_a_job_and_an_overtaken_one_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"steps": 6, "warmup": 0, "scale": 1, "threads": 1, "device": "cpu"}
    job = Job(NAME, "jobs.txt:1", make_request(PROMPT, seed=0, frames=16, **fixed))
    queues = [open_queue(open_object_store(URL)) for _ in range(2)]
    queues[0].add(job)
    attempts = [queue.claim(NAME, JobStatus("queued"), threads=1) for queue in queues]
    assert attempts[0]
    assert attempts[1] is None
    states, replace = list[str](), ObjectStore.replace

    def overtake(store: ObjectStore, name: str, data: bytes) -> None:
        replace(store, name, data)
        states.extend([name] if "/state." in name else [])
        if len(states) == 2 and "/state." in name:
            assert queues[1].claim(NAME, JobStatus("queued", attempts[0]), threads=1)

    monkeypatch.setattr(ObjectStore, "replace", overtake)
    perform(queues[0], job, attempts[0], ModelCache(), Stop(interruptible=False), Listener())
    assert 2 <= len(states) <= 3  # at most the chunk in work
    assert not queues[0].renew(NAME, attempts[0])
    assert not queues[0].store.exists(NAME)


@pytest.mark.parametrize(("url", "variables", "reason"), [
    ("s3://missing/videos", {}, "The specified bucket does not exist"),
    (URL, {"AWS_ACCESS_KEY_ID": ""}, "Unable to locate credentials"),
    (URL, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
])  # fmt: skip
def test_what_is_missing_is_one_line(
    url: str, variables: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    code, out, err = pavdm("batch", "jobs.txt", "-d", url, *QUICK)
    assert (code, out) == (4, "")
    message, hint = err.splitlines()
    assert message.startswith(f"error: cannot write in {url}/: {reason}")
    assert hint == "hint: check the name of the bucket, and that your credentials may write to it"


def test_a_url_without_a_bucket_is_rejected() -> None:
    code, _, err = pavdm("batch", "jobs.txt", "-d", "s3://", *QUICK)
    assert (code, err.splitlines()[0]) == (2, "error: s3:// names no bucket or folder")
