"""What viewers follow while a video is rendered: the live stream, events, and the file so far."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from pavdm_cli.serve.live import Codec, LiveStream, available_codecs
from pavdm_cli.serve.schemas import ServerEvent
from pavdm_cli.serve.service import Service, Serving, VideoId, get_record, playable_file
from pavdm_cli.serve.session import Session
from pavdm_cli.serve.settings import MEDIA_TYPES
from pavdm_cli.serve.store import VideoRecord
from pavdm_cli.serve.transcode import MEDIA_TYPE, transcode
from pavdm_cli.serve.worker import request_of

router = APIRouter(prefix="/v1/videos/{video_id}")
HEARTBEAT = 15.0  # seconds without an event after which a comment keeps the connection open
EVENTS = {"content": {"text/event-stream": {"schema": ServerEvent.model_json_schema()}}}
BINARY = {"schema": {"type": "string", "format": "binary"}}
STREAM = {"content": dict.fromkeys(MEDIA_TYPES.values(), BINARY)}


@router.get("/stream", response_class=Response, responses={200: STREAM, 303: {"description": "the video is complete"}})
async def stream(video_id: VideoId, service: Serving, codec: Codec | None = None) -> Response:
    """The frames as they are rendered: H.264 in fragmented MP4, or VP9 in WebM, with one fragment per chunk.

    Waits for the first frame. The first request for a codec starts its stream at the next chunk.
    """
    record = get_record(video_id, service)
    if record.state == "completed":
        return RedirectResponse(f"/v1/videos/{video_id}/content", 303)
    if record.state == "failed":
        raise HTTPException(409, f"{video_id} failed: {record.error}")
    codec = _choose_codec(codec)
    session = service.hub.open(video_id)
    if record.state == "paused" and not session.is_live:
        raise HTTPException(409, f"{video_id} is paused: see /v1/videos/{video_id}/partial")
    live = session.stream(codec, request_of(record, service.settings))
    fragments = live.fragments.follow()
    first = await anext(fragments, None)
    if first is None:
        raise HTTPException(409, f"{video_id} ended before its first frame")
    return StreamingResponse(_fragments(live, first, fragments), media_type=live.media_type)


def _choose_codec(codec: Codec | None) -> Codec:
    """The codec, or the preferred one. Raises: HTTPException if the server cannot encode it."""
    codecs = available_codecs()
    if not codecs or codec not in (None, *codecs):
        raise HTTPException(501, f"this server cannot encode {codec or 'video'}: its FFmpeg lacks the encoder")
    return codec or codecs[0]


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
    position = session.events.latest if session else 0
    record = service.store.get(record.id) or record  # read after the position: later changes follow
    yield f"event: video\ndata: {service.describe(record).model_dump_json()}\n\n"
    if session is None:
        yield f"event: state\ndata: {json.dumps({'state': record.state, 'error': record.error})}\n\n"
        return
    async for event in session.events.follow(HEARTBEAT, position):
        yield b": heartbeat\n\n" if event is None else event


@router.get("/partial", response_class=Response, responses={200: STREAM})
def partial(video_id: VideoId, service: Serving, codec: Literal["vp9"] | None = None) -> Response:
    """The playable part of the file written so far. `codec`: transcoded on the fly, without audio."""
    record = get_record(video_id, service)
    path = playable_file(record, service)
    if codec is None:
        return FileResponse(path, media_type=MEDIA_TYPES[Path(record.file).suffix])
    _choose_codec(codec)
    if not service.transcodes.acquire(blocking=False):
        raise HTTPException(503, "other videos are being converted", {"retry-after": "10"})
    try:
        data = transcode(path)
    except BaseException:
        service.transcodes.release()
        raise
    return Transcode(data, service.transcodes)


class Transcode(StreamingResponse):
    """A converted video; another one may be converted once it ends, or the viewer has left."""

    def __init__(self, data: Iterator[bytes], slots: threading.Semaphore) -> None:
        super().__init__(data, media_type=MEDIA_TYPE)
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Also reached if the viewer leaves before the first byte, unlike a `finally` of the iterator."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slots.release()
