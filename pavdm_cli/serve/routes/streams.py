"""What viewers follow while a video is rendered: the live stream, events, and the file so far."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from pavdm_cli.serve.live import LiveStream
from pavdm_cli.serve.routes.videos import MEDIA_TYPES
from pavdm_cli.serve.schemas import ServerEvent
from pavdm_cli.serve.service import Service, Serving, VideoId, get_record, playable_file
from pavdm_cli.serve.session import Session
from pavdm_cli.serve.store import VideoRecord

router = APIRouter(prefix="/v1/videos/{video_id}")
HEARTBEAT = 15.0  # seconds without an event after which a comment keeps the connection open
EVENTS = {"content": {"text/event-stream": {"schema": ServerEvent.model_json_schema()}}}
VIDEO = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("/stream", response_class=Response, responses={200: VIDEO, 303: {"description": "the video is complete"}})
async def stream(video_id: VideoId, service: Serving) -> Response:
    """The frames as they are rendered, in fragmented MP4 with one fragment per chunk; waits for the first one."""
    record = get_record(video_id, service)
    if record.state == "completed":
        return RedirectResponse(f"/v1/videos/{video_id}/content", 303)
    if record.state == "failed":
        raise HTTPException(409, f"{video_id} failed: {record.error}")
    session = service.hub.open(video_id)
    async for _ in session.ready.follow():
        break
    live = session.live
    if live is None:
        raise HTTPException(409, f"{video_id} ended before its first frame")
    fragments = live.fragments.follow()
    first = await anext(fragments, None)
    if first is None:
        raise HTTPException(409, f"{video_id} ended before its first frame")
    return StreamingResponse(_fragments(live, first, fragments), media_type=live.media_type)


async def _fragments(live: LiveStream, first: bytes, fragments: AsyncIterator[bytes | None]) -> AsyncIterator[bytes]:
    yield live.header + first
    async for fragment in fragments:
        if fragment is not None:
            yield fragment


@router.get("/events", response_class=Response, responses={200: EVENTS})
async def events(video_id: VideoId, service: Serving) -> StreamingResponse:
    """Server-sent events: `video` with the whole object, then `progress`, `prompt`, `prompt_rejected`, `state`."""
    record = get_record(video_id, service)
    session = None if record.state in ("completed", "failed") else service.hub.open(video_id)
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(_events(record, session, service), media_type="text/event-stream", headers=headers)


async def _events(record: VideoRecord, session: Session | None, service: Service) -> AsyncIterator[str | bytes]:
    yield f"event: video\ndata: {service.describe(record).model_dump_json()}\n\n"
    if session is None:
        yield f"event: state\ndata: {json.dumps({'state': record.state, 'error': record.error})}\n\n"
        return
    async for event in session.events.follow(HEARTBEAT, latest=True):
        yield b": heartbeat\n\n" if event is None else event


@router.get("/partial", response_class=FileResponse)
def partial(video_id: VideoId, service: Serving) -> FileResponse:
    """The file as far as it is written: it plays."""
    record = get_record(video_id, service)
    return FileResponse(playable_file(record, service), media_type=MEDIA_TYPES[Path(record.file).suffix])
