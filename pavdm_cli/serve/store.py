"""The videos of a server in an SQLite database: what to render, how far it is, and which changes are pending."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "rendering", "paused", "completed", "failed"]
Action = Literal["", "pause", "stop", "delete"]
DATABASE = "videos.sqlite"


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """A video: one row."""

    id: str
    kind: str  # generate, extend, redo or remix
    request: str  # JSON of the request
    file: str  # name in the server's folder
    total: int  # frames of the whole video; 0: endless
    created_at: int  # seconds since the epoch
    state: State = "queued"
    frames: int = 0  # that no crash can lose
    completed_at: int = 0
    error: str = ""
    pending_action: Action = ""  # to perform after the current chunk
    new_prompt: str = ""  # that takes effect at the next shift
    source_id: str = ""  # of the video that this one continues or changes
    upload: str = ""  # name of the uploaded file that it needs
    size: str = ""  # WIDTHxHEIGHT of the file, where it has that of another video
    fps: float = 0.0  # of the file, where it has that of another video
    notes: str = "[]"  # JSON list of notes, without those on its prompts
    live: bool = False  # rendered no faster than it plays


COLUMNS = tuple(field.name for field in fields(VideoRecord))
TABLE = f"""
CREATE TABLE IF NOT EXISTS videos (number INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(COLUMNS)});
CREATE UNIQUE INDEX IF NOT EXISTS videos_by_id ON videos (id);
CREATE INDEX IF NOT EXISTS videos_by_state ON videos (state);
"""


class Store:
    """The database; may be used by several threads. Raises: sqlite3.Error."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(folder / DATABASE, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(TABLE)
            self._add_columns()
        except sqlite3.Error:
            self._connection.close()
            raise

    def add(self, record: VideoRecord) -> None:
        """Store a new video."""
        places = ", ".join("?" * len(COLUMNS))
        with self._transaction() as connection:
            connection.execute(f"INSERT INTO videos ({', '.join(COLUMNS)}) VALUES ({places})", astuple(record))

    def get(self, video_id: str) -> VideoRecord | None:
        """The video of an id, if there is one."""
        return next(iter(self._select("WHERE id = ?", (video_id,))), None)

    def update(self, video_id: str, **changes: Any) -> None:
        """Change columns of a video."""
        assert changes.keys() <= {*COLUMNS}
        assignments = ", ".join(f"{name} = ?" for name in changes)
        with self._transaction() as connection:
            connection.execute(f"UPDATE videos SET {assignments} WHERE id = ?", (*changes.values(), video_id))

    def remove(self, video_id: str) -> None:
        """Delete a video."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM videos WHERE id = ?", (video_id,))

    def next_to_render(self) -> VideoRecord | None:
        """The video that was being rendered, if any, else the one that has waited longest."""
        order = "WHERE state IN ('queued', 'rendering') ORDER BY state = 'queued', number LIMIT 1"
        return next(iter(self._select(order)), None)

    def count_waiting(self) -> int:
        """How many videos are queued or being rendered."""
        with self._transaction() as connection:
            row = connection.execute("SELECT COUNT(*) FROM videos WHERE state IN ('queued', 'rendering')").fetchone()
        return int(row[0])

    def depends_on(self, video_id: str) -> list[VideoRecord]:
        """Unfinished videos that need the file of this one."""
        return self._select("WHERE source_id = ? AND state NOT IN ('completed', 'failed')", (video_id,))

    def page(self, limit: int, after: str = "", ascending: bool = False) -> tuple[list[VideoRecord], bool]:
        """Up to `limit` videos after one of them, newest first, and whether there are more."""
        compare, order = (">", "ASC") if ascending else ("<", "DESC")
        condition = f"WHERE number {compare} (SELECT number FROM videos WHERE id = ?)" if after else "WHERE ? = ''"
        rows = self._select(f"{condition} ORDER BY number {order} LIMIT ?", (after, limit + 1))
        return rows[:limit], len(rows) > limit

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _add_columns(self) -> None:
        """Add the columns that a database of an earlier version lacks."""
        with self._transaction() as connection:
            present = {row[1] for row in connection.execute("PRAGMA table_info(videos)")}
            for field in (field for field in fields(VideoRecord) if field.name not in present):
                connection.execute(f"ALTER TABLE videos ADD COLUMN {field.name} DEFAULT {field.default!r}")

    def _select(self, clauses: str, values: tuple[Any, ...] = ()) -> list[VideoRecord]:
        with self._transaction() as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM videos {clauses}", values).fetchall()
        return [VideoRecord(**dict(zip(COLUMNS, row, strict=True)) | {"live": bool(row[-1])}) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection


def new_video_id() -> str:
    """An id that cannot be guessed."""
    return f"video_{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since the epoch."""
    return int(time.time())
