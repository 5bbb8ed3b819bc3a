"""Which Ray cluster a batch connects to, with a stand-in for Ray: one that has ended is an error at once."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.command import pavdm

import pavdm_cli.batch
from pavdm_cli.commands import batch_ray

RAY = b"\0\0\0\4\0\0\0\0\0"  # how HTTP/2 begins
WEB = b"HTTP/1.1 400 Bad Request\r\n"


def batch_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment_address: str, local_address: str
) -> tuple[Any, list[str]]:
    """A batch with a stand-in for Ray, and the addresses that it was told to connect to."""
    addresses: list[str] = []

    def find(address: str) -> str:
        if not local_address:
            raise ConnectionError("Could not find any running Ray instance.")
        return local_address

    def init(address: str = "one that is started here", **options: Any) -> None:
        addresses.append(address)
        raise RuntimeError("this is a stand-in")

    private = SimpleNamespace(services=SimpleNamespace(canonicalize_bootstrap_address=find))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, _private=private))
    monkeypatch.setitem(sys.modules, "ray._private", private)
    monkeypatch.delitem(sys.modules, "pavdm_cli.batch.ray_tasks", raising=False)
    monkeypatch.setattr(batch_ray, "check_ray", lambda workers: None)
    monkeypatch.setenv("RAY_ADDRESS", environment_address)
    for name in batch_ray.ENVIRONMENT:
        monkeypatch.setenv(name, "0")  # to be restored
    (tmp_path / "jobs.txt").write_text("a red ball")
    words = ("batch", tmp_path / "jobs.txt", "-d", tmp_path / "out", "--engine", "ray", "--device", "cpu")
    try:
        return pavdm(*words), addresses
    finally:
        sys.modules.pop("pavdm_cli.batch.ray_tasks", None)
        vars(pavdm_cli.batch).pop("ray_tasks", None)


@contextmanager
def answering(data: bytes | None) -> Iterator[str]:
    """The address of a program that sends these bytes to whoever connects; None: it hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(data or b"")

        thread = threading.Thread(target=answer)
        if data:
            thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        if data:
            thread.join()


@pytest.mark.parametrize(("at", "data", "reason"), [
    ("RAY_ADDRESS", None, "no answer within 5 s"),
    ("RAY_ADDRESS", WEB, "the program there is not Ray"),
    ("auto", WEB, "the program there is not Ray"),
    ("this machine", None, "no answer within 5 s"),
    ("this machine", RAY, "this is a stand-in"),
])  # fmt: skip
def test_a_cluster_that_has_ended_or_hangs_is_one_line(
    at: str, data: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: connect(address, timeout=timeout / 20))
    with answering(data) as address:
        variable = {"RAY_ADDRESS": address, "auto": "auto", "this machine": ""}[at]
        here = "" if at == "RAY_ADDRESS" else address
        (code, out, err), addresses = batch_without_ray(tmp_path, monkeypatch, variable, here)
    assert (code, out) == (6, ""), err
    assert f"error: cannot connect to the Ray cluster at {address}: {reason}\n" in err
    assert addresses == ([address] if data == RAY else [])


def test_without_a_cluster_one_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, addresses = batch_without_ray(tmp_path, monkeypatch, "", "")
    assert addresses == ["one that is started here"]
