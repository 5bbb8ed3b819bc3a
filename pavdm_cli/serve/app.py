"""The application: routes, errors as OpenAI's clients expect them, and the worker that lives as long as it does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from pavdm_cli import __version__
from pavdm_cli.errors import DeviceError, ModelError, OutputError, PavdmError
from pavdm_cli.runtime.python_names import with_python_names
from pavdm_cli.serve.guard import Guard
from pavdm_cli.serve.responses import error_response
from pavdm_cli.serve.routes import control, pages, server, streams, videos
from pavdm_cli.serve.schemas import CreateVideo, ErrorBody, TimelineEntry
from pavdm_cli.serve.service import Service
from pavdm_cli.serve.settings import ServeSettings

STATUS = {OutputError: 507, ModelError: 503, DeviceError: 503}  # all other errors are the client's: 400
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody} for code in (400, 401, 403, 404, 409, 413, 421, 422, 429, 501, 503, 507)
}


def create_app(settings: ServeSettings, preload: bool = True) -> FastAPI:
    """The application of a folder, which one process at a time may use. Raises: OutputError.

    preload: load the default model before the first video is asked for.
    """
    service = Service(settings, preload)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(title="pavdm", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    for routes in (videos.router, control.router, streams.router, server.router, pages.router):
        app.include_router(routes, responses=ERRORS)
    app.add_exception_handler(PavdmError, _pavdm_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ValidationError, _validation_error)
    for kind in (OSError, sqlite3.Error):
        app.add_exception_handler(kind, _storage_error)
    app.add_middleware(Guard, settings=settings)
    _document_create(app)
    return app


def _pavdm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PavdmError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
    message = with_python_names(error.as_line())  # fields are named like parameters in Python
    folder = request.app.state.service.settings.folder
    for path in (folder / "uploads", folder):  # a client need not know where files are
        message = message.replace(f"{path}/", "")
    return error_response(status, message)


def _storage_error(request: Request, error: Exception) -> JSONResponse:
    """A full disk, or a damaged database."""
    return error_response(507, f"the server's folder cannot be used: {getattr(error, 'strerror', None) or error}")


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | ValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "path"))
    if first["type"] == "extra_forbidden":
        message = f"unknown field {place!r}; /openapi.json lists the fields"
    elif place == "video_id":
        message = f"{first['input']!r} is not the id of a video; GET /v1/videos lists them"
    else:
        message = f"{place}: {first['msg']}" if place else first["msg"]
    return error_response(422, message, place or None)


def _document_create(app: FastAPI) -> None:
    """Add the two bodies of `POST /v1/videos` to the OpenAPI schema: it is parsed by hand."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        schemas = schema["components"]["schemas"]
        for model in (CreateVideo, TimelineEntry):
            body = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.setdefault(model.__name__, {name: value for name, value in body.items() if name != "$defs"})
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
