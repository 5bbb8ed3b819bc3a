"""A stand-in for the hub on the loopback: lists and files of repositories, resumable, that can cut a connection."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, file_download


class Hub:
    """What is published, what was asked for, and how many bytes are sent before a cut."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files  # repository -> name -> contents
        self.asked: list[tuple[str, str]] = []  # path, range
        self.cut_after: int | None = None
        self.broken = False  # sends other bytes than it published
        self.hashes = True  # says what they are
        self.left: int | None = None  # bytes of files that it still sends, in all
        self.stalls = False  # a cut leaves the connection open, until `gone` is set
        self.gone = threading.Event()
        self.token = ""  # without which nothing is shown
        self.url = ""

    def about(self, repo: str) -> dict[str, object]:
        """A repository's list: git's blob of every file, which is a pointer to it where it is large; its hash there."""
        siblings = []
        for name, data in self.files[repo].items():
            digest = hashlib.sha256(data).hexdigest()
            large = {"sha256": digest, "size": len(data), "pointerSize": 134} if len(data) > 500 else None
            blob = f"oid sha256:{digest}".encode() if large else data
            hashes = {"blobId": hashlib.sha1(b"blob %d\0%b" % (len(blob), blob)).hexdigest(), "lfs": large}
            siblings.append({"rfilename": name, "size": len(data)} | (hashes if self.hashes else {}))
        return {"id": repo, "sha": "c0ffee", "siblings": siblings}


@contextmanager
def serving(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub at `url`, till the block ends."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                send(self, 403 if "Authorization" in self.headers else 401, b"")
            else:
                answer(hub, self)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.gone.set()
        server.shutdown()
        server.server_close()
        thread.join()


def tamed(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The hub's client without a login, in no need to wait, and writing every 1000 bytes."""
    patch.setattr(file_download.time, "sleep", lambda seconds: None)
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)


def answer(hub: Hub, to: BaseHTTPRequestHandler) -> None:
    """One request: a list, a file or the rest of one, or 404."""
    path, byte_range = unquote(urlsplit(to.path).path), to.headers.get("Range", "")
    hub.asked.append((path, byte_range))
    listed = re.fullmatch(r"/api/models/(.+)/revision/(?:main|[0-9a-f]{40})", path)
    match = re.fullmatch(r"/(.+?/.+?)/resolve/c0ffee/(.+)", path)
    if listed and listed[1] in hub.files:
        send(to, 200, json.dumps(hub.about(listed[1])).encode())
    elif match and match[2] in hub.files.get(match[1], {}):
        data = hub.files[match[1]][match[2]]
        start = int(byte_range.removeprefix("bytes=").removesuffix("-") or 0)
        part = (data[::-1] if hub.broken else data)[start:]
        cut = min(len(part), *(limit for limit in (hub.cut_after, hub.left) if limit is not None), 1 << 40)
        hub.left = None if hub.left is None else hub.left - cut
        send(to, 206 if byte_range else 200, part, cut, f"bytes {start}-{len(data) - 1}/{len(data)}")
        if hub.cut_after is not None and hub.stalls:
            hub.gone.wait(60)
    else:
        send(to, 404, b"")


def send(to: BaseHTTPRequestHandler, status: int, data: bytes, cut_after: int | None = None, rest: str = "") -> None:
    """An answer, or the beginning of one."""
    to.send_response(status)
    to.send_header("Content-Length", str(len(data)))
    if status == 206:
        to.send_header("Content-Range", rest)
    to.end_headers()
    to.wfile.write(data[:cut_after])
