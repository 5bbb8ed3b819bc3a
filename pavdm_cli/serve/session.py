"""What viewers of a video follow while it is not finished: events, and the live stream."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from typing import Any

from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.request import Request
from pavdm_cli.serve.feed import Feed
from pavdm_cli.serve.live import Codec, LiveStream, Pacing

MAX_EVENTS, MAX_EVENT_BYTES = 200, 1 << 20
SPEED_WINDOW = 6  # chunks over which the speed is averaged


class Session:
    """The viewers' side of one video."""

    def __init__(self) -> None:
        self.events = Feed(MAX_EVENTS, MAX_EVENT_BYTES)
        self.pacing: Pacing | None = None
        self._lock = threading.Lock()  # guards the streams
        self._streams: dict[Codec, LiveStream] = {}
        self._closed = False
        self._times: deque[tuple[float, int]] = deque(maxlen=SPEED_WINDOW)
        self._chunks = 0  # since the server began
        self.render_fps = 0.0  # frames that are rendered per second

    def stream(self, codec: Codec, request: Request) -> LiveStream:
        """The live stream of a codec, which begins with the next chunk if nobody has asked for it before."""
        with self._lock:
            stream = self._streams.get(codec) or self._streams.setdefault(codec, LiveStream(request, codec))
            if self._closed:
                stream.close()
            return stream

    @property
    def is_live(self) -> bool:
        """Whether frames have been shown, or may still be in memory."""
        return self._chunks > 0

    def push(self, chunk: RenderedChunk) -> None:
        """Show a chunk to all viewers."""
        with self._lock:
            streams = [*self._streams.values()]
        for stream in streams:
            stream.push(chunk)
        self.measure(len(chunk.frames))

    def publish(self, kind: str, **fields: Any) -> None:
        """Send an event to all who follow."""
        self.events.publish(f"event: {kind}\ndata: {json.dumps(fields)}\n\n".encode())

    def measure(self, frames: int) -> None:
        """Update the speed after some more frames."""
        now = time.monotonic()
        self._times.append((now, frames))
        self._chunks += 1
        elapsed = now - self._times[0][0]
        if elapsed > 0:
            self.render_fps = sum(count for _, count in list(self._times)[1:]) / elapsed

    def progress(self, frames: int) -> dict[str, Any]:
        """Frames and chunks so far, and the speed."""
        return {"frames": frames, "chunk": self._chunks, "render_fps": round(self.render_fps, 2)}

    def restart_clock(self) -> None:
        """Forget the speed: the render has paused."""
        self._times.clear()

    def close(self) -> None:
        """End the events and streams."""
        with self._lock:
            self._closed = True
            streams = [*self._streams.values()]
        for stream in streams:
            stream.close()
        self.events.close()


class Hub:
    """The sessions of all videos that are not finished; memory is that of the ones with viewers or being rendered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._closed = False

    def open(self, video_id: str) -> Session:
        """The session of an unfinished video."""
        with self._lock:
            session = self._sessions.setdefault(video_id, Session())
            if self._closed:
                session.close()
            return session

    def find(self, video_id: str) -> Session | None:
        """The session of a video, if it has one."""
        return self._sessions.get(video_id)

    def close(self, video_id: str) -> None:
        """End the session of a video that is finished."""
        with self._lock:
            session = self._sessions.pop(video_id, None)
        if session:
            session.close()

    def close_all(self) -> None:
        """End all sessions: the server stops."""
        with self._lock:
            self._closed = True
            sessions = [*self._sessions.values()]
        for session in sessions:
            session.close()
