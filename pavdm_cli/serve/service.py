"""What all routes share: the store, the worker, the sessions, and a folder that no other server uses."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Annotated, BinaryIO, Literal

from fastapi import Depends, Path, Request
from starlette.exceptions import HTTPException

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.generation import stored_request
from pavdm_cli.generation.checks import format_prompts
from pavdm_cli.generation.request import build_request
from pavdm_cli.models.adapter import Prompt
from pavdm_cli.runtime.python_names import with_python_names
from pavdm_cli.serve import examples
from pavdm_cli.serve.schemas import Change, Video, VideoError
from pavdm_cli.serve.session import Hub
from pavdm_cli.serve.settings import MEDIA_TYPES, ServeSettings
from pavdm_cli.serve.store import DATABASE, State, Store, VideoRecord
from pavdm_cli.serve.worker import Worker, request_of
from pavdm_cli.video.paths import partial_path
from pavdm_cli.video.write.output import open_locked

MAX_TRANSCODES = 2  # stored videos that are converted at a time, each on one core
STATUS: dict[State, Literal["queued", "in_progress", "completed", "failed"]] = {  # OpenAI's words for our states
    "queued": "queued",
    "rendering": "in_progress",
    "paused": "in_progress",
    "completed": "completed",
    "failed": "failed",
}


@lru_cache(maxsize=1000)
def _prompts(request_json: str) -> tuple[Prompt, ...]:
    """The prompts of a stored request as its model gets them; none if they have none, or it knows them no longer."""
    request = stored_request.from_json(json.loads(request_json), FilePath())
    with suppress(UsageError):
        return format_prompts(request) if request.prompt else ()
    return ()


class Service:
    """A server without its routes. Raises: OutputError if the folder cannot be used."""

    def __init__(self, settings: ServeSettings, preload: bool) -> None:
        self.settings, self.hub = settings, Hub()
        self.transcodes = threading.Semaphore(MAX_TRANSCODES)
        self._lock = _lock_folder(settings)
        self.store = _open_store(settings, self._lock)
        values = {"prompt": "a red ball", "device": settings.device, "threads": settings.resolve_threads()}
        request = build_request(values) if preload else None
        self.worker = Worker(settings, self.store, self.hub, request)

    def start(self) -> None:
        """Begin to render."""
        self.worker.start()

    def close(self) -> None:
        """Stop after the current chunk."""
        self.hub.close_all()
        self.worker.stop()
        self.store.close()
        self._lock.close()

    def queue(self, record: VideoRecord) -> Video:
        """Store a video to be rendered. Raises: HTTPException if too many wait."""
        if self.store.count_waiting() >= self.settings.max_queue:
            raise HTTPException(429, f"the queue is full: {self.settings.max_queue} videos", {"retry-after": "60"})
        self.store.add(record)
        self.worker.wake()
        return self.describe(record)

    def describe(self, record: VideoRecord) -> Video:
        """A video as clients see it."""
        request, session = request_of(record, self.settings), self.hub.find(record.id)
        spec = request.spec
        prompts = _prompts(record.request)
        notes = [*json.loads(record.notes), *(note for each in prompts for note in each.notes)]
        captions = [each.caption or each.text for each in prompts] or [""] * (1 + len(request.timeline))
        scale, fps = request.output.resolve_scale(spec), record.fps or spec.fps
        height, width = (side * scale for side in spec.size)
        percent = 100 if record.state == "completed" else 99 * record.frames // record.total if record.total else 0
        return Video(
            id=record.id,
            status=STATUS[record.state],
            state=record.state,
            progress=min(percent, 100),
            created_at=record.created_at,
            completed_at=record.completed_at or None,
            error=VideoError(code="render_failed", message=record.error) if record.error else None,
            model=spec.name,
            prompt=request.prompt,
            caption=captions[0],
            notes=[with_python_names(note) for note in notes],
            seconds=f"{record.total / fps:g}" if record.total else "forever",
            size=record.size or f"{width}x{height}",
            scale=None if record.size else scale,
            remixed_from_video_id=record.source_id or None if record.kind == "remix" else None,
            kind=record.kind,
            source_video_id=record.source_id or None,
            seed=request.seed,
            fps=fps,
            frames=record.frames,
            total_frames=record.total,
            render_fps=round(session.render_fps, 2) if session and record.state == "rendering" else 0.0,
            timeline=[
                Change(at=change.at, prompt=change.prompt, caption=caption)
                for change, caption in zip(request.timeline, captions[1:], strict=True)
            ],
            live=record.live,
            media_type=MEDIA_TYPES[FilePath(record.file).suffix],
            playable=find_playable(record, self.settings) is not None,
        )


def _lock_folder(settings: ServeSettings) -> BinaryIO:
    try:
        settings.upload_path("").mkdir(parents=True, exist_ok=True)
        return open_locked(settings.path("serve.lock"))
    except OSError as error:
        raise OutputError(f"cannot write in {settings.folder}: {error.strerror}", "choose another with -d") from None
    except OutputError:
        message = f"another server uses {settings.folder}"
        raise OutputError(message, "stop it, or choose another folder with -d") from None


def _open_store(settings: ServeSettings, lock: BinaryIO) -> Store:
    try:
        return Store(settings.folder)
    except sqlite3.Error as error:
        lock.close()
        message = f"cannot use {settings.path(DATABASE)}: {error}"
        raise OutputError(message, "restore it from a copy, or choose another folder with -d") from None


def get_service(request: Request) -> Service:
    """The service of the application."""
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(get_service)]
VideoId = Annotated[str, Path(pattern="^video_[0-9a-f]{24}$", examples=[examples.VIDEO_ID])]


def get_record(video_id: str, service: Service) -> VideoRecord:
    """The record of an id. Raises: HTTPException."""
    record = service.store.get(video_id)
    if record is None or record.pending_action == "delete":
        raise HTTPException(404, f"there is no video {video_id}")
    return record


def get_finished(video_id: str, service: Service) -> VideoRecord:
    """The record of a video that is complete. Raises: HTTPException."""
    record = get_record(video_id, service)
    if record.state != "completed" or not service.settings.path(record.file).exists():
        raise HTTPException(409, f"{video_id} is not complete: its state is {record.state}")
    return record


def playable_file(record: VideoRecord, service: Service) -> FilePath:
    """The file of a video as far as it is written. Raises: HTTPException if it has no frames yet."""
    path = find_playable(record, service.settings)
    if path is None:
        raise HTTPException(409, f"{record.id} has no frames yet")
    return path


def find_playable(record: VideoRecord, settings: ServeSettings) -> FilePath | None:
    """The file of a video as far as it is written; None if it has no frames yet."""
    path = settings.path(record.file)
    # The partial file gets its final name before the state is stored, perhaps between two lines of this function.
    candidates = (path,) if record.state == "completed" else (partial_path(path), path)
    return next((file for file in candidates if _has_frames(file)), None)


def _has_frames(path: FilePath) -> bool:
    """Whether a file has been written to: the first segment of a video has a few seconds."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
