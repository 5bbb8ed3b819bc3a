"""Latency of `pavdm serve` for the first frame and a new prompt, and the cost of viewers and a long queue.

One server on loopback with `pocket`; one row in `benchmarks/results/serve.jsonl`. `python benchmarks/serve.py`. With
Chromium and playwright also how often the page's video stalls at real time, alone and with a tab that occupies a core.

A stall is a `waiting` event. It need not cost time: when Chromium's decoder is late, as on a busy core or with little
in the buffer, the clock of a video without audio runs on, and frames are dropped.
"""

from __future__ import annotations

import argparse
import json
import shutil
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
WARM_UP, SPAN = 6.0, 8.0  # seconds for loading the model; seconds of a measurement
WATCHED = 30.0  # seconds of playback, and between two measurements of the memory
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BUSY_WORKER = "new Worker(URL.createObjectURL(new Blob(['for (;;);'])))"
COUNT_STALLS = """
    globalThis.stalls = 0;
    document.getElementById("video").addEventListener("waiting", () => stalls++);
"""


def request(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, JSON), timeout=60) as response:
        return json.load(response)


def render_fps(address: str, video: str) -> float:
    """Frames rendered per second."""
    start, frames = time.monotonic(), request(address, video)["frames"]
    time.sleep(SPAN)
    return round((request(address, video)["frames"] - frames) / (time.monotonic() - start), 2)


def playback(address: str) -> dict[str, Any]:
    """Stalls of the page's video while it is rendered; empty without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if CHROMIUM is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.fill("#prompt", PROMPT)
        page.press("#prompt", "Enter")
        while not page.evaluate("video.currentTime > 0"):
            time.sleep(0.05)
        page.evaluate(COUNT_STALLS)
        row = {"watched_seconds": WATCHED} | _watch(page, "")
        browser.new_page().evaluate(BUSY_WORKER)
        row |= _watch(page, "_with_busy_tab")
        page.click("#stop")
        browser.close()
    return row


def _watch(page: Any, phase: str) -> dict[str, float]:
    """The number of stalls, and their total length in seconds."""
    start, (stalls, position) = time.monotonic(), page.evaluate("[stalls, video.currentTime]")
    time.sleep(WATCHED)
    now, (stalls_after, position_after) = time.monotonic(), page.evaluate("[stalls, video.currentTime]")
    stalled_seconds = max(0.0, now - start - (position_after - position))
    return {f"stalls{phase}": stalls_after - stalls, f"stalled_seconds{phase}": round(stalled_seconds, 1)}


def measure(address: str, server: psutil.Process) -> dict[str, Any]:
    """All measurements of a row."""
    time.sleep(WARM_UP)
    row = playback(address)
    start, body = time.monotonic(), {"prompt": PROMPT, "seconds": "forever", "live": True, "seed": 3}
    video = f"v1/videos/{request(address, 'v1/videos', body)['id']}"
    urllib.request.urlopen(f"{address}{video}/stream", timeout=60).read(1000)
    row |= {"first_frame_seconds": round(time.monotonic() - start, 2)}
    row |= {"fps": request(address, video)["fps"], "render_fps": render_fps(address, video)}
    start = time.monotonic()
    request(address, f"{video}/prompt", {"prompt": NEW_PROMPT})
    while not request(address, video)["timeline"]:
        time.sleep(0.01)
    row |= {"new_prompt_seconds": round(time.monotonic() - start, 2), "megabytes": server.memory_info().rss >> 20}
    viewers = [urllib.request.urlopen(f"{address}{video}/stream", timeout=60) for _ in range(VIEWERS)]
    for seed in range(QUEUED):
        request(address, "v1/videos", {"prompt": PROMPT, "seed": seed})
    row |= {"viewers": len(viewers), "queued": QUEUED, "render_fps_with_all": render_fps(address, video)}
    row |= {"megabytes_with_all": server.memory_info().rss >> 20}
    time.sleep(WATCHED)
    return row | {"megabytes_with_all_later": server.memory_info().rss >> 20}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
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
