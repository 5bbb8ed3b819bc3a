"""The worker: one thread that renders one video after the other and checks for interruptions after each chunk."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import suppress
from typing import Any

from pavdm_cli.batch.render import ModelCache, render
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import stored_request
from pavdm_cli.generation.checks import format_prompts
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.write import RunControl, WriteResult
from pavdm_cli.runtime.diagnose import diagnose
from pavdm_cli.serve.live import Pacing, available_codecs
from pavdm_cli.serve.session import Hub, Session
from pavdm_cli.serve.settings import ServeSettings
from pavdm_cli.serve.steering import steer
from pavdm_cli.serve.store import Store, VideoRecord, now
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path

RETRY_INTERVAL = 1.0  # seconds after which a database that cannot be written is tried again


class Worker:
    """Renders the queue of a store. After a crash the next worker continues with the same bytes."""

    def __init__(self, settings: ServeSettings, store: Store, hub: Hub, preload: Request | None = None) -> None:
        """preload: request whose model is loaded at the start."""
        self.settings, self.store, self.hub, self.models = settings, store, hub, ModelCache()
        self._preload = preload
        self._lock = threading.RLock()  # guards the choice of the video to render
        self._current = ""
        self._work, self._interrupt = threading.Event(), threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pavdm-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Check the queue: a video may have been added."""
        self._work.set()

    def stop(self, timeout: float | None = None) -> None:
        """Stop after the current chunk; the video continues when a worker starts again."""
        self._stopping = True
        self._interrupt.set()
        self._work.set()
        self._thread.join(timeout)

    def change(self, video_id: str, rendering: dict[str, Any], idle: dict[str, Any]) -> None:
        """Store changes of a video.

        rendering: columns if it is being rendered, which take effect after its current chunk; idle: columns if not.
        """
        with self._lock:
            if video_id == self._current:
                self.store.update(video_id, **rendering)
                self._interrupt.set()
            else:
                self.store.update(video_id, **idle)
        self.wake()

    def delete(self, video_id: str) -> None:
        """Remove a video and its files, after its current chunk if it is being rendered."""
        with self._lock:
            if video_id == self._current:
                self.store.update(video_id, pending_action="delete")
                self._interrupt.set()
            elif record := self.store.get(video_id):
                self._remove(record)

    def _run(self) -> None:
        if self._preload:
            with suppress(Exception):  # reported for the first video
                self.models.open(resolve(self._preload))
        while not self._stopping:
            self._work.clear()
            try:
                if record := self._claim():
                    self._perform(record)
                else:
                    self._work.wait()
            except sqlite3.Error:  # a full disk; or the store was closed while this thread stopped
                self._work.wait(RETRY_INTERVAL)

    def _claim(self) -> VideoRecord | None:
        with self._lock:
            self._interrupt.clear()
            if self._stopping or not (record := self.store.next_to_render()):
                return None
            if record.pending_action == "delete":
                self._remove(record)
                return self._claim()
            if record.pending_action == "pause":
                self.store.update(record.id, state="paused", pending_action="")
                return self._claim()
            self._current = record.id
            self.store.update(record.id, state="rendering")
            if record.pending_action not in ("", "stop"):  # a stopped video has at least one new chunk
                self._interrupt.set()
            return record

    def _perform(self, record: VideoRecord) -> None:
        session = self.hub.open(record.id)
        session.restart_clock()
        session.publish("state", state="rendering")
        try:
            request = self._request(record, session)
            result = render(request, self.models, self._control(record, request, session))
        except Exception as error:
            problem = diagnose(error)
            self.models.loaded = None  # which the failure may have left in any state
            self._store_outcome(record.id, session, problem.as_line()[:1000])
        else:
            self._store_outcome(record.id, session, result=result)

    def _request(self, record: VideoRecord, session: Session) -> Request:
        """The request of a video, with a new prompt if its user gave one."""
        request = request_of(record, self.settings)
        if not record.new_prompt:
            return request
        try:
            request, at = steer(request, record.new_prompt, self.models)
            prompt = format_prompts(request)[[0.0, *(change.at for change in request.timeline)].index(at)]
            caption = prompt.caption or prompt.text
            session.publish("prompt", at=at, prompt=record.new_prompt, caption=caption, notes=prompt.notes)
        except PavdmError as error:
            session.publish("prompt_rejected", prompt=record.new_prompt, message=error.message)
        request_json = json.dumps(stored_request.to_json(request))
        with self._lock:
            latest = self.store.get(record.id)
            keep = latest.new_prompt if latest and latest.new_prompt != record.new_prompt else ""
            self.store.update(record.id, request=request_json, new_prompt=keep)
        return request

    def _control(self, record: VideoRecord, request: Request, session: Session) -> RunControl:
        frames, fps = 0, request.spec.fps
        pacing = session.pacing = session.pacing or Pacing(self._interrupt.wait)
        session.stream(available_codecs()[0], request)

        def on_frames(count: int) -> None:
            nonlocal frames
            frames += count
            self.store.update(record.id, frames=frames)

        def on_chunk(chunk: RenderedChunk) -> None:
            session.push(chunk)
            num_rendered = chunk.state.frames if chunk.state else len(chunk.frames)
            session.publish("progress", **session.progress(num_rendered), total=record.total, fps=fps)
            if record.pending_action == "stop":  # before this chunk, when nothing new could be kept
                self._interrupt.set()
            elif record.live:
                pacing.hold(num_rendered / fps)

        def stopped_by_user() -> bool:
            latest = self.store.get(record.id)
            return latest is not None and latest.pending_action == "stop"

        return RunControl(on_frames, self._interrupt.is_set, stopped_by_user=stopped_by_user, on_chunk=on_chunk)

    def _store_outcome(
        self, video_id: str, session: Session, error: str = "", result: WriteResult | None = None
    ) -> None:
        """Store how a render ended: complete, failed, or interrupted by an action, a new prompt or a shutdown."""
        with self._lock:
            self._current = ""
            record = self.store.get(video_id)
            assert record
            if record.pending_action == "delete":
                return self._remove(record)
            no_changes = {"pending_action": "", "new_prompt": ""}
            if error:
                self.store.update(video_id, state="failed", error=error, completed_at=now(), **no_changes)
            elif result and result.is_complete:
                final_values = {"frames": result.frames, "total": result.frames, "completed_at": now()}
                notes = json.dumps([*json.loads(record.notes), *result.notes])
                self.store.update(video_id, state="completed", notes=notes, **no_changes, **final_values)
            elif record.pending_action == "pause":
                self.store.update(video_id, state="paused", pending_action="")
        self._announce(video_id, session)

    def _announce(self, video_id: str, session: Session) -> None:
        record = self.store.get(video_id)
        if record and record.state != "rendering":
            session.publish("state", state=record.state, error=record.error)
        if record and record.state in ("completed", "failed"):
            self.hub.close(video_id)

    def _remove(self, record: VideoRecord) -> None:
        path = self.settings.path(record.file)
        partial = partial_path(path)
        for file in (path, partial, checkpoint_path(partial), latents_path(partial)):
            file.unlink(missing_ok=True)
        if record.upload:
            self.settings.upload_path(record.upload).unlink(missing_ok=True)
        self.store.remove(record.id)
        if session := self.hub.find(record.id):
            session.publish("state", state="deleted")
        self.hub.close(record.id)


def request_of(record: VideoRecord, settings: ServeSettings) -> Request:
    """The request that a record stores."""
    return stored_request.from_json(json.loads(record.request), settings.path(record.file))
