"""Examples of bodies, for the OpenAPI schema."""

from __future__ import annotations

import json
from typing import Any

from pavdm_cli.models.registry import DEFAULT

VIDEO_ID = "video_0123456789abcdef01234567"
PROMPT = "a red balloon drifting over green hills at sunset"
NIGHT = "a red balloon at night"
NIGHT_CAPTION = "a red balloon drifting over green hills at night"
CREATE: dict[str, Any] = {
    "prompt": PROMPT,
    "seconds": 8,
    "seed": 7,
    "timeline": [{"at": "4s", "prompt": NIGHT}],
}
LIVE: dict[str, Any] = {"prompt": PROMPT, "seconds": "forever", "live": True}
NEW_PROMPT: dict[str, Any] = {"prompt": NIGHT}
EXTEND: dict[str, Any] = {"prompt": NIGHT, "seconds": "8"}
REDO: dict[str, Any] = {"from": "2s", "to": "4s", "seed": 8}
VIDEO: dict[str, Any] = {
    "id": VIDEO_ID,
    "object": "video",
    "status": "in_progress",
    "state": "rendering",
    "progress": 37,
    "created_at": 1764400000,
    "completed_at": None,
    "expires_at": None,
    "error": None,
    "model": DEFAULT,
    "prompt": PROMPT,
    "caption": PROMPT,
    "notes": [
        f'at 4s: the prompt leaves out motion and place; filled in from the video and the seed: "{NIGHT_CAPTION}"'
    ],
    "seconds": "8",
    "size": "384x256",
    "scale": 2,
    "remixed_from_video_id": None,
    "kind": "generate",
    "source_video_id": None,
    "seed": 7,
    "fps": 8.0,
    "frames": 24,
    "total_frames": 64,
    "render_fps": 11.2,
    "timeline": [{"at": 4.0, "prompt": NIGHT, "caption": NIGHT_CAPTION}],
    "live": False,
    "media_type": "video/mp4",
    "playable": True,
}
ERROR: dict[str, Any] = {
    "error": {
        "message": f"{DEFAULT} knows none of the words in 'a zebra'; `pavdm models show {DEFAULT}` lists its words",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}
EVENTS: list[dict[str, Any]] = [
    {"event": "progress", "data": '{"frames": 24, "chunk": 6, "render_fps": 11.2, "total": 64, "fps": 8.0}'},
    {"event": "prompt", "data": json.dumps({"at": 4.0, "prompt": NIGHT, "caption": NIGHT_CAPTION, "notes": []})},
]
