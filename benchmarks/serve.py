"""How soon `pavdm serve` shows its first frame and follows a new prompt, and what viewers and a long queue cost.

One server on loopback with `pocket`; one row in `benchmarks/results/serve.jsonl`. `python benchmarks/serve.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from pavdm_cli.bench.env import environment

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
PROMPT, NEW_PROMPT = "a red balloon over green hills", "at night"
VIEWERS, QUEUED = 20, 200
JSON = {"content-type": "application/json"}
WARM_UP, SPAN = 6.0, 8.0  # seconds until the model is loaded; seconds that are measured


def request(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, JSON), timeout=60) as response:
        return json.load(response)


def speed(address: str, video: str) -> float:
    """Frames per second that are rendered."""
    begin, frames = time.monotonic(), request(address, video)["frames"]
    time.sleep(SPAN)
    return round((request(address, video)["frames"] - frames) / (time.monotonic() - begin), 2)


def measure(address: str, server: psutil.Process) -> dict[str, Any]:
    """The figures of a row."""
    time.sleep(WARM_UP)
    begin, body = time.monotonic(), {"prompt": PROMPT, "seconds": "forever", "live": True, "seed": 3}
    video = f"v1/videos/{request(address, 'v1/videos', body)['id']}"
    urllib.request.urlopen(f"{address}{video}/stream", timeout=60).read(1000)
    row: dict[str, Any] = {"first_frame_seconds": round(time.monotonic() - begin, 2)}
    row |= {"rate": 8, "frames_per_second": speed(address, video)}
    begin = time.monotonic()
    request(address, f"{video}/prompt", {"prompt": NEW_PROMPT})
    while not request(address, video)["timeline"]:
        time.sleep(0.01)
    row |= {"new_prompt_seconds": round(time.monotonic() - begin, 2), "megabytes": server.memory_info().rss >> 20}
    viewers = [urllib.request.urlopen(f"{address}{video}/stream", timeout=60) for _ in range(VIEWERS)]
    for seed in range(QUEUED):
        request(address, "v1/videos", {"prompt": PROMPT, "seed": seed})
    row |= {"viewers": len(viewers), "queued": QUEUED, "frames_per_second_with_all": speed(address, video)}
    return row | {"megabytes_with_all": server.memory_info().rss >> 20}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pavdm_cli", "serve", "--no-browser", "--port", "0", "-d", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            try:
                row = environment() | measure(server.stdout.readline().strip(), psutil.Process(server.pid))
            finally:
                server.kill()
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
