"""OpenAI's routes of videos: create, list, retrieve, download, remix, delete."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.models.registry import DEFAULT
from pavdm_cli.runtime.untrusted import InvalidError, parse_json
from pavdm_cli.serve.jobs import create_job, extend_job, is_image, redo_job
from pavdm_cli.serve.previews import spritesheet, thumbnail
from pavdm_cli.serve.schemas import CreateVideo, DeletedVideo, ExtendVideo, NewPrompt, RedoVideo, Video, VideoList
from pavdm_cli.serve.service import Service, Serving, VideoId, get_finished, get_record, playable_file
from pavdm_cli.serve.settings import MEDIA_TYPES
from pavdm_cli.serve.store import VideoRecord
from pavdm_cli.video.write.output import slug

router = APIRouter(prefix="/v1/videos")
IMAGE_TYPES = ("image/webp", "image/jpeg")
BINARY = {"schema": {"type": "string", "format": "binary"}}
CONTENT = {"content": dict.fromkeys((*MEDIA_TYPES.values(), *IMAGE_TYPES), BINARY)}
IMMUTABLE = {"cache-control": "private, max-age=86400, immutable"}
FORM_FIELDS = ("prompt", "model", "seconds", "size", "options", "input_reference")
REREADS, REREAD_INTERVAL = 200, 0.05  # of a file that is being written again; seconds
MAX_FIELDS = 64  # of a form, so that one that is unknown is named
FORM = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1},
        "model": {"type": "string", "examples": [DEFAULT]},
        "seconds": {"type": "string", "examples": ["8"]},
        "size": {"type": "string", "examples": ["96x64"]},
        "input_reference": {"type": "string", "format": "binary", "description": "an image or a video"},
        "options": {"type": "string", "description": "further fields of CreateVideo as a JSON object"},
    },
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/CreateVideo"}},
            "multipart/form-data": {"schema": FORM},
        },
    }
}


@router.post("", openapi_extra=BODY)
async def create(request: Request, service: Serving) -> Video:
    """Queue a video from a prompt, which may begin with an image or continue an uploaded video."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = CreateVideo.model_validate(_json_object(await request.body()))
        return await run_in_threadpool(lambda: service.queue(create_job(body, service.settings)))
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        if unknown := [name for name in form if name not in FORM_FIELDS]:
            raise UsageError(f"{unknown[0][:40]!r} is not a field of the form", f"use {', '.join(FORM_FIELDS)}")
        file = form.get("input_reference")
        texts = {name: value for name, value in form.items() if isinstance(value, str) and name != "options"}
        values = _json_object(str(form.get("options", "{}")).encode()) | texts
        upload = file if isinstance(file, UploadFile) and file.size else None
        values.pop("input_reference", None)
        return await run_in_threadpool(_create_from_form, values, upload, service)


def _json_object(data: bytes) -> dict[str, Any]:
    """Raises: HTTPException."""
    try:
        value = parse_json(data.decode())
    except (InvalidError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the body is not valid: {error}") from None
    if not isinstance(value, dict):
        raise HTTPException(400, 'the body must be a JSON object such as {"prompt": "a red ball"}')
    return value


def _create_from_form(values: dict[str, Any], upload: UploadFile | None, service: Service) -> Video:
    if upload is None:
        return service.queue(create_job(CreateVideo.model_validate(values), service.settings))
    name = secrets.token_hex(12)
    path = service.settings.upload_path(name)
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(upload.file, file)
        record = _job_from_upload(values, path, service)
        return service.queue(replace(record, upload=name))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _job_from_upload(values: dict[str, Any], path: Path, service: Service) -> VideoRecord:
    if is_image(path):
        return create_job(CreateVideo.model_validate(values), service.settings, path)
    return extend_job(ExtendVideo.model_validate(values), service.settings, path)


@router.get("")
def list_videos(
    service: Serving,
    limit: int = Query(20, ge=1, le=100),
    after: str = Query("", max_length=40),
    order: Literal["asc", "desc"] = "desc",
) -> VideoList:
    """Videos, newest first."""
    records, has_more = service.store.page(limit, after, order == "asc")
    videos = [service.describe(record) for record in records if record.pending_action != "delete"]
    ends = (videos[0].id, videos[-1].id) if videos else (None, None)
    return VideoList(data=videos, first_id=ends[0], last_id=ends[1], has_more=has_more)


@router.post("/edits", include_in_schema=False)
@router.post("/extensions", include_in_schema=False)
@router.post("/characters", include_in_schema=False)
def not_implemented() -> None:
    """OpenAI's `edits` and `extensions` endpoints, which are not implemented."""
    raise HTTPException(501, "not implemented here; use /v1/videos/{id}/redo and /v1/videos/{id}/extend")


@router.get("/{video_id}")
def retrieve(video_id: VideoId, service: Serving) -> Video:
    """A video."""
    return service.describe(get_record(video_id, service))


@router.delete("/{video_id}")
def delete(video_id: VideoId, service: Serving) -> DeletedVideo:
    """Delete a video; one that is being rendered stops after its current chunk."""
    get_record(video_id, service)
    if dependents := service.store.depends_on(video_id):
        raise HTTPException(409, f"{dependents[0].id} needs this video until it is complete")
    service.worker.delete(video_id)
    return DeletedVideo(id=video_id)


@router.get("/{video_id}/content", response_class=Response, responses={200: CONTENT})
def content(
    video_id: VideoId, service: Serving, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> Response:
    """The complete file; its first frame (WebP), also while it is rendered; or a sheet of frames (JPEG)."""
    if variant == "thumbnail":
        return _thumbnail(get_record(video_id, service), service)
    record = get_finished(video_id, service)
    path = service.settings.path(record.file)
    if variant == "spritesheet":
        return Response(spritesheet(path), media_type="image/jpeg", headers=IMMUTABLE)
    name = f"{slug(service.describe(record).prompt)}-{record.id[-6:]}{path.suffix}"
    media_type = MEDIA_TYPES[path.suffix]
    return FileResponse(path, media_type=media_type, filename=name, content_disposition_type="inline")


def _thumbnail(record: VideoRecord, service: Service) -> Response:
    """The first frame, which never changes once it is there. Raises: HTTPException, InputError."""
    for _ in range(REREADS):
        try:
            return Response(thumbnail(playable_file(record, service)), media_type="image/webp", headers=IMMUTABLE)
        except (InputError, HTTPException):
            if not _is_file_changing(record, service):
                raise
        time.sleep(REREAD_INTERVAL)
        record = get_record(record.id, service)
    raise HTTPException(409, f"{record.id} has no frames yet")


def _is_file_changing(record: VideoRecord, service: Service) -> bool:
    """Whether the file has just got its final name, or its first seconds are written again after a new prompt."""
    is_rewritten = record.state == "rendering" and record.frames > 0
    return is_rewritten or (record.state != "completed" and service.settings.path(record.file).exists())


@router.post("/{video_id}/remix")
def remix(video_id: VideoId, body: NewPrompt, service: Serving) -> Video:
    """Regenerate the whole video with another prompt, and the same seed and settings."""
    source = get_finished(video_id, service)
    redo_body = RedoVideo.model_validate({"prompt": body.prompt})
    record = redo_job(redo_body, service.settings, service.settings.path(source.file), "remix")
    return service.queue(replace(record, source_id=video_id))
