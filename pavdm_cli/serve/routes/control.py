"""Our own routes that change a video: steer, pause, resume, stop, extend, redo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from pavdm_cli.generation.checks import format_prompts
from pavdm_cli.serve.jobs import extend_job, redo_job
from pavdm_cli.serve.schemas import ExtendVideo, NewPrompt, RedoVideo, Video
from pavdm_cli.serve.service import Service, Serving, VideoId, get_finished, get_record
from pavdm_cli.serve.store import VideoRecord
from pavdm_cli.serve.worker import request_of

router = APIRouter(prefix="/v1/videos/{video_id}")
UNFINISHED = ("queued", "rendering", "paused")


@router.post("/prompt", status_code=202)
def new_prompt(video_id: VideoId, body: NewPrompt, service: Serving) -> Video:
    """A prompt that takes effect at the next shift of the window; the file stores it in its timeline."""
    record = _get_unfinished(video_id, service)
    if record.kind in ("redo", "remix"):
        raise HTTPException(409, "the prompt of a redo or remix can only be set when it is created")
    prompt = " ".join(body.prompt.split())
    format_prompts(replace(request_of(record, service.settings), prompt=prompt, timeline=()))
    return _change(record, service, {"new_prompt": prompt}, {"new_prompt": prompt})


@router.post("/pause", status_code=202)
def pause(video_id: VideoId, service: Serving) -> Video:
    """Stop rendering after the current chunk, until `resume`."""
    return _change(_get_unfinished(video_id, service), service, {"pending_action": "pause"}, {"state": "paused"})


@router.post("/resume", status_code=202)
def resume(video_id: VideoId, service: Serving) -> Video:
    """Continue a paused video, or try a failed one again."""
    record = get_record(video_id, service)
    if record.state not in ("paused", "failed") and record.pending_action != "pause":
        raise HTTPException(409, f"{video_id} is not paused: its state is {record.state}")
    reset_fields = {"state": "queued", "error": "", "completed_at": 0, "pending_action": ""}
    return _change(record, service, {"pending_action": ""}, reset_fields)


@router.post("/stop", status_code=202)
def stop(video_id: VideoId, service: Serving) -> Video:
    """End an endless video after the current chunk; its file is then complete."""
    record = _get_unfinished(video_id, service)
    if record.total:
        raise HTTPException(409, "only an endless video can be stopped; use pause or DELETE")
    return _change(record, service, {"pending_action": "stop"}, {"pending_action": "stop", "state": "queued"})


@router.post("/extend")
def extend(video_id: VideoId, body: ExtendVideo, service: Serving) -> Video:
    """A new video that continues this one."""
    source = get_finished(video_id, service)
    record = extend_job(body, service.settings, service.settings.path(source.file))
    return service.queue(replace(record, source_id=video_id))


@router.post("/redo")
def redo(video_id: VideoId, body: RedoVideo, service: Serving) -> Video:
    """A new video in which a span of this one is generated again; all other frames stay bit-identical."""
    source = get_finished(video_id, service)
    record = redo_job(body, service.settings, service.settings.path(source.file))
    return service.queue(replace(record, source_id=video_id))


def _get_unfinished(video_id: str, service: Service) -> VideoRecord:
    record = get_record(video_id, service)
    if record.state not in UNFINISHED:
        raise HTTPException(409, f"{video_id} is finished: its state is {record.state}")
    return record


def _change(record: VideoRecord, service: Service, rendering: dict[str, Any], idle: dict[str, Any]) -> Video:
    """Store a change, which depends on whether the video is being rendered (see `Worker.change`)."""
    service.worker.change(record.id, rendering, idle)
    return service.describe(get_record(record.id, service))
