"""A stand-in for the hub on the loopback: lists and files of repositories, resumable, that can cut a connection."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """What is published, what was asked for, and how many bytes are sent before a cut."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files  # repository -> name -> contents
        self.asked: list[tuple[str, str]] = []  # path, range
        self.cut_after: int | None = None
        self.broken = False  # sends other bytes than it published
        self.url = ""

    def about(self, repo: str) -> dict[str, object]:
        """A repository's list, large files with their hash."""
        siblings = []
        for name, data in self.files[repo].items():
            large = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}} if len(data) > 500 else {}
            siblings.append({"rfilename": name, "size": len(data), **large})
        return {"sha": "c0ffee", "siblings": siblings}


@contextmanager
def serving(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub at `url`, till the block ends."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(hub, self)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(hub: Hub, to: BaseHTTPRequestHandler) -> None:
    """One request: a list, a file or the rest of one, or 404."""
    path, asked = unquote(urlsplit(to.path).path), to.headers.get("Range", "")
    hub.asked.append((path, asked))
    listed = re.fullmatch(r"/api/models/(.+)/revision/(?:main|[0-9a-f]{40})", path)
    found = re.fullmatch(r"/(.+?/.+?)/resolve/c0ffee/(.+)", path)
    if listed and listed[1] in hub.files:
        send(to, 200, json.dumps(hub.about(listed[1])).encode())
    elif found and found[2] in hub.files.get(found[1], {}):
        data = hub.files[found[1]][found[2]]
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        send(to, 206 if asked else 200, (data[::-1] if hub.broken else data)[start:], hub.cut_after)
    else:
        send(to, 404, b"")


def send(to: BaseHTTPRequestHandler, status: int, data: bytes, cut_after: int | None = None) -> None:
    """An answer, or the beginning of one."""
    to.send_response(status)
    to.send_header("Content-Length", str(len(data)))
    to.end_headers()
    to.wfile.write(data[:cut_after])
