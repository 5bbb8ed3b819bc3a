"""The page and its files."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from pavdm_cli.serve.guard import COOKIE
from pavdm_cli.serve.service import Serving

router = APIRouter(include_in_schema=False)
FILES = {path.name: path for path in (Path(__file__).parents[1] / "page").iterdir() if path.is_file()}
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
COOKIE_SECONDS = 30 * 24 * 3600


@router.get("/", response_class=Response)
def index(request: Request, service: Serving) -> Response:
    """The page. A token in the address becomes a cookie, and leaves the address."""
    token = request.query_params.get("token")
    if token is None:
        return page_file("index.html")
    response = RedirectResponse("/", 303)
    if service.settings.token:
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        response.set_cookie(COOKIE, token, COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
    return response


@router.get("/page/{name}", response_class=FileResponse)
def page_file(name: str) -> FileResponse:
    """A file of the page. Raises: HTTPException."""
    path = FILES.get(name)
    if path is None:
        raise HTTPException(404, "there is no such file")
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers={"cache-control": "no-cache"})
