"""What a server is started with, and the files in its folder."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.runtime.threads import available_cores, share_cores

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
MEDIA_TYPES = {".mp4": "video/mp4", ".mkv": "video/x-matroska", ".webm": "video/webm"}  # of videos


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of a server. Files in its folder are named by the server, never by a client."""

    folder: Path
    host: str = LOOPBACK_NAMES[1]
    port: int = 8420
    token: str = ""  # that every request must carry; empty: none, on loopback
    allowed_names: frozenset[str] = frozenset()  # host names, in addition to those of loopback
    device: str = "auto"
    max_queue: int = 256  # videos that wait
    max_upload: int = 64 << 20  # bytes of a request with a file
    threads: int = 0  # of a video whose request does not set them; 0: all cores but one

    def resolve_threads(self, threads: int = 0) -> int:
        """CPU threads of a video; `threads`: of its request."""
        return min(threads or self.threads, available_cores()) or share_cores(1)

    def path(self, file: str) -> Path:
        """The path of a video."""
        return self.folder / file

    def upload_path(self, file: str) -> Path:
        """The path of an uploaded file."""
        return self.folder / "uploads" / file


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOOPBACK_NAMES[0]


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)
