"""Request filtering: host names (DNS rebinding), origins (CSRF), the token, and the size of what is sent."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pavdm_cli.serve.responses import error_response
from pavdm_cli.serve.settings import LOOPBACK_NAMES, ServeSettings, is_loopback

COOKIE = "pavdm_token"
MAX_JSON = 1 << 20  # bytes of a request without a file
READING = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class TooLarge(Exception):
    """The body of a request has more bytes than are allowed."""


class Guard:
    """Rejects requests before the application sees them, and adds security headers to every response."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            return await _reject(*refusal)(scope, receive, send_with_headers)
        try:
            await self._app(scope, self._count_bytes(headers, receive), send_with_headers)
        except TooLarge as error:
            if not started:
                await _reject(413, str(error))(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and message of a request that is refused."""
        host = headers.get("host", "")
        if not self._is_own_name(host):
            return 421, "host name not allowed; see --allow-host"
        if not _is_same_origin(headers, host, scope["method"]):
            return 403, "requests from other sites are rejected"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes(headers):
            return 413, f"a request may have at most {self._max_bytes(headers)} bytes"
        if self._settings.token and not self._has_token(scope, headers):
            return 401, "this server needs a token: Authorization: Bearer TOKEN"
        return None

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header is a name of this server. An address cannot be rebound, so every one is."""
        name = _split(f"//{host}").hostname or ""
        if name in LOOPBACK_NAMES or name in self._settings.allowed_names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self._settings.host)

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        candidates = [bearer.strip()] if kind.lower() == "bearer" else []
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        candidates += [cookie.value] if cookie else []
        if scope["path"] == "/":  # the address that is printed; the page takes the cookie from then on
            candidates += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        token = self._settings.token.encode()
        return any(secrets.compare_digest(candidate.encode("utf-8", "replace"), token) for candidate in candidates)

    def _max_bytes(self, headers: Headers) -> int:
        is_form = headers.get("content-type", "").startswith("multipart/")
        return self._settings.max_upload if is_form else MAX_JSON

    def _count_bytes(self, headers: Headers, receive: Receive) -> Receive:
        """`receive` that counts bytes: a chunked body does not announce its length."""
        limit, num_received = self._max_bytes(headers), 0

        async def receive_counted() -> Message:
            nonlocal num_received
            message = await receive()
            num_received += len(message.get("body", b""))
            if num_received > limit:
                raise TooLarge(f"a request may have at most {limit} bytes")
            return message

        return receive_counted


def _is_same_origin(headers: Headers, host: str, method: str) -> bool:
    """Whether a request is from our own page or from no page at all; browsers cannot forge these headers."""
    site = headers.get("sec-fetch-site", "none")
    if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        return False
    if method in READING:
        return True
    origin = headers.get("origin")
    return (origin is None or _split(origin).netloc == host) and site not in ("cross-site", "same-site")


def _split(address: str) -> SplitResult:
    """The parts of an address; without a host name if it is invalid."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _reject(status: int, message: str) -> ASGIApp:
    """A response that ends the connection, since the rest of the request is not read."""
    headers = {"connection": "close"} | ({"www-authenticate": "Bearer"} if status == 401 else {})
    return error_response(status, message, headers=headers)
