"""What `pavdm serve` makes of the fields of a request, and what its answers say about the video."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from support.command import pavdm
from support.serving import BALL

from pavdm_cli.serve.jobs import create_job
from pavdm_cli.serve.schemas import CreateVideo
from pavdm_cli.serve.settings import ServeSettings


def test_the_servers_threads_are_those_of_requests_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pavdm_cli.serve.settings", "pavdm_cli.runtime.threads"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 8)
    servers: list[ServeSettings] = []

    def run_server(settings: ServeSettings, listener: socket.socket, announce: object) -> None:
        listener.close()
        servers.append(settings)

    monkeypatch.setattr("pavdm_cli.serve.run.run_server", run_server)
    for words in ((), ("--threads", 3), ("--threads", 100)):
        assert pavdm("serve", "--no-browser", "--port", 0, "-d", tmp_path, "--device", "cpu", *words).code == 0
    used = []
    for settings in servers:
        for body in (CreateVideo(prompt=BALL), CreateVideo(prompt=BALL, threads=2)):
            used.append(json.loads(create_job(body, settings).request)["execution"]["threads"])
    assert used == [7, 2, 3, 2, 8, 2]
