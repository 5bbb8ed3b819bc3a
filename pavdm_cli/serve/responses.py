"""Error responses in the form that OpenAI's clients expect."""

from __future__ import annotations

from starlette.responses import JSONResponse


def error_response(
    status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A response with an error body; param: the field of the request that is wrong."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": None}
    return JSONResponse({"error": error}, status, headers)
