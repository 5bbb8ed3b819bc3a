"""`pavdm serve` rejects hostile pages and clients, in one line and before slow work."""

from __future__ import annotations

import json
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.command import pavdm
from support.serving import BALL, serving

from pavdm_cli.commands.serve import _address, _open_browser
from pavdm_cli.errors import UsageError
from pavdm_cli.serve import guard
from pavdm_cli.serve.jobs import extend_job
from pavdm_cli.serve.schemas import ExtendVideo
from pavdm_cli.serve.settings import ServeSettings, is_loopback
from pavdm_cli.serve.worker import Worker
from pavdm_cli.video import VideoWriter

TOKEN = "a-token-that-is-long"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_claim", lambda worker: None)
        with serving(tmp_path_factory.mktemp("guarded"), max_upload=200_000) as client:
            yield client


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that other machines can reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_claim", lambda worker: None)
        names = frozenset({"films.example"})
        with serving(tmp_path_factory.mktemp("private"), host="0.0.0.0", token=TOKEN, allowed_names=names) as client:
            yield client


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "192.168.1.9", ""])
def test_a_foreign_host_name_is_rejected(client: TestClient, host: str) -> None:
    assert client.get("/v1/videos", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8420", "127.0.0.1:9", "[::1]:8420"])
def test_names_of_loopback_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/v1/videos", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_another_site_cannot_create_a_video(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/v1/videos", json={"prompt": BALL}, headers=headers)
    assert (response.status_code, client.get("/v1/videos").json()["data"]) == (403, [])


def test_another_site_cannot_embed_a_video_but_may_link_to_it(client: TestClient) -> None:
    embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/healthz", headers=embedded).status_code == 403
    assert client.get("/healthz", headers=embedded | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    for path in ("/healthz", "/nothing", "/openapi.json"):
        headers = client.get(path).headers
        assert headers.items() >= guard.HEADERS.items()
        assert "unsafe" not in headers["content-security-policy"]


def test_without_the_token_nothing_is_answered(private: TestClient) -> None:
    for headers in (
        {},
        {"authorization": "Bearer x"},
        {"authorization": "Basic é".encode()},
        {"cookie": "pavdm_token=x"},
    ):
        assert private.get("/v1/videos", headers=headers).status_code == 401


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {TOKEN}"}, {"cookie": f"a=b; pavdm_token={TOKEN}"}])
@pytest.mark.parametrize("host", ["192.168.1.9:8420", "films.example"])
def test_the_token_opens_the_server(private: TestClient, headers: dict[str, str], host: str) -> None:
    assert private.get("/v1/videos", headers=headers | {"host": host}).status_code == 200


def test_a_token_in_the_address_of_an_api_route_does_not_count(private: TestClient) -> None:
    assert private.get("/v1/videos", params={"token": TOKEN}).status_code == 401


@pytest.mark.parametrize(
    "name", ["../videos.sqlite", "%2e%2e%2fserve.lock", "video_0", "video_" + "g" * 24, "x" * 9000]
)
@pytest.mark.parametrize("rest", ["", "/content", "/partial", "/stream", "/events"])
def test_no_path_leaves_the_folder(client: TestClient, name: str, rest: str) -> None:
    response = client.get(f"/v1/videos/{name}{rest}")
    assert response.status_code in (404, 422)
    assert "SQLite" not in response.text


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": BALL, "output": "/tmp/x.mp4"}, "output"),
    ({"prompt": BALL, "image": "/etc/passwd"}, "image"),
    ({"prompt": BALL, "lora": ["/etc/passwd"]}, "lora"),
    ({"prompt": BALL, "ffmpeg": "/bin/sh"}, "ffmpeg"),
    ({"prompt": BALL, "timeline": "/etc/passwd"}, "timeline"),
    ({"prompt": BALL, "frames": "8"}, "frames"),
    ({"prompt": BALL, "threads": 10**6}, "threads"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_a_wrong_field_is_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    response = client.post("/v1/videos", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)


def test_an_unknown_field_or_id_says_where_to_look(client: TestClient) -> None:
    field = client.post("/v1/videos", json={"prompt": BALL, "secs": 4}).json()["error"]["message"]
    assert field == "unknown field 'secs'; /openapi.json lists the fields"
    identifier = client.get("/v1/videos/ID").json()["error"]["message"]
    assert identifier == "'ID' is not the id of a video; GET /v1/videos lists them"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "zebra"}, "zebra"),
    ({"model": "/etc"}, "no model"),
    ({"model": "sora-2"}, "no model"),
    ({"size": "720x1280"}, "96x64"),
    ({"seconds": -1}, "seconds=-1"),
    ({"seconds": "soon"}, "time"),
    ({"seconds": 1e9}, "24 hours"),
    ({"model_options": {"text_device": "cuda"}}, "text_device"),
    ({"timeline": [{"at": "99s", "prompt": "at night"}]}, "beyond the end"),
    ({"method": "none"}, "method must be"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG)
def test_a_wrong_value_is_one_line(client: TestClient, fields: dict[str, Any], text: str) -> None:
    response = client.post("/v1/videos", json={"prompt": BALL, "frames": None} | fields)
    message = response.json()["error"]["message"]
    assert (response.status_code, text in message) == (400, True), message
    assert ("\n" in message, "--" in message) == (False, False)


@pytest.mark.parametrize("name", ["/etc", "/etc/passwd", "/nowhere"])
@pytest.mark.parametrize("is_stored", [False, True])
def test_the_model_of_a_continuation_is_never_a_path(name: str, is_stored: bool, tmp_path: Path) -> None:
    metadata = {"pavdm": "1", "prompt": BALL, "model": name if is_stored else "pocket"}
    with VideoWriter(tmp_path / "v.mp4", 96, 64, 8, metadata=metadata) as writer:
        writer.write(np.zeros((3, 64, 96, 3), np.uint8))
    body = ExtendVideo(prompt=BALL, model=None if is_stored else name)
    with pytest.raises(UsageError) as error:
        extend_job(body, ServeSettings(tmp_path), tmp_path / "v.mp4")
    assert error.value.message == f"there is no model {name!r}"  # the same whether the path exists or not


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}'])
def test_a_body_that_is_no_object_is_one_line(client: TestClient, body: bytes) -> None:
    for path in ("/v1/videos", "/v1/videos/video_000000000000000000000000/prompt"):
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422)
        assert response.json()["error"]["message"]


def test_large_bodies_are_rejected_however_they_are_sent(client: TestClient) -> None:
    large = b"{" + b" " * guard.MAX_JSON
    assert client.post("/v1/videos", content=large).status_code == 413
    assert client.post("/v1/videos", content=iter([large, large])).status_code == 413
    form = {"input_reference": ("a.mp4", b"0" * 300_000)}
    assert client.post("/v1/videos", data={"prompt": BALL}, files=form).status_code == 413


@pytest.mark.parametrize("data", [b"", b"#EXTM3U\nhttp://127.0.0.1/", b"\x89PNG\r\n\x1a\n" + b"0" * 99, b"GIF89a"])
def test_an_upload_that_cannot_be_read_leaves_nothing(client: TestClient, data: bytes) -> None:
    folder: Path = client.app.state.service.settings.folder  # type: ignore[attr-defined]
    form = {"prompt": BALL, "options": json.dumps({"frames": 4})}
    response = client.post("/v1/videos", data=form, files={"input_reference": ("a", data)})
    assert response.status_code == (400 if data else 200)
    assert str(folder) not in response.text
    assert list((folder / "uploads").iterdir()) == []


def test_what_a_state_does_not_allow_is_a_conflict(client: TestClient) -> None:
    video_id = client.post("/v1/videos", json={"prompt": BALL, "frames": 4}).json()["id"]
    for action in ("resume", "stop"):
        assert client.post(f"/v1/videos/{video_id}/{action}").status_code == 409
    for action in ("content", "partial"):
        assert client.get(f"/v1/videos/{video_id}/{action}").status_code == 409
    assert client.post(f"/v1/videos/{video_id}/redo", json={"from": 1}).status_code == 409
    assert client.post(f"/v1/videos/{video_id}/prompt", json={"prompt": "a zebra"}).status_code == 400
    for path in ("/v1/videos/edits", "/v1/videos/extensions"):
        assert client.post(path).status_code == 501


def test_the_schema_names_every_reference(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    names = [line.split('"')[0] for line in json.dumps(schema).split("#/components/schemas/")[1:]]
    assert {"CreateVideo", "Video"} <= {*names} <= schema["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
)
def test_only_loopback_needs_no_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org")))


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pavdm_cli.commands.serve.find_spec", lambda module: None)
    code, out, err = pavdm("serve")
    assert (code, out, err.splitlines()[0]) == (1, "", "error: serve needs fastapi, uvicorn, python-multipart")
    assert "pip install" in err


def test_a_short_token_and_a_taken_port_are_one_line(tmp_path: Path) -> None:
    import socket

    assert pavdm("serve", "--token", "short").code == 2
    with socket.create_server(("127.0.0.1", 0)) as other_server:
        code, _, err = pavdm("serve", "--port", other_server.getsockname()[1], "-d", tmp_path)
    assert (code, "cannot listen on 127.0.0.1 port" in err) == (2, True)


def test_other_commands_import_nothing_of_it() -> None:
    import subprocess
    import sys

    code = "import sys, pavdm_cli.app; print({'fastapi', 'uvicorn', 'starlette', 'pavdm_cli.serve'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "[x]:8420"])
def test_a_host_that_is_no_address_is_rejected(client: TestClient, host: str) -> None:
    assert client.get("/v1/videos", headers={"host": host}).status_code == 421


def test_an_origin_that_is_no_address_is_rejected(client: TestClient) -> None:
    assert client.post("/v1/videos", json={"prompt": BALL}, headers={"origin": "http://["}).status_code == 403


def test_a_number_of_frames_beyond_any_video_is_rejected(client: TestClient) -> None:
    body = {"prompt": BALL, "seconds": "forever", "frames": 10**20}
    assert client.post("/v1/videos", json=body).status_code == 422


def test_the_printed_address_takes_any_token() -> None:
    token = "a+b&c#d/e=f?g h%i"
    address = urlsplit(_address("0.0.0.0", 8420, token))
    assert (address.netloc, address.path, address.fragment) == ("127.0.0.1:8420", "/", "")
    assert parse_qs(address.query) == {"token": [token]}
    assert _address("::1", 80, "") == "http://[::1]:80/"


def test_a_text_browser_does_not_block_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    left, opened = threading.Event(), threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda address: (opened.set(), left.wait(20)))
    _open_browser("http://127.0.0.1:8420/")
    assert opened.wait(20)
    left.set()
