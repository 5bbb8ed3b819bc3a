"""The page of `pavdm serve` in headless Chromium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LAUNCH = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
PLAYING = "video.getVideoPlaybackQuality().totalVideoFrames > 4 && video.currentTime > 0.5 && !video.paused"


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not (path := next(filter(None, map(shutil.which, NAMES)), None)):
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=LAUNCH)
        yield browser
        browser.close()


def open_page(browser: Any, address: str, script: str = "", **options: Any) -> Any:
    """A new page, which collects errors in `errors`; script: runs before those of the page."""
    page = browser.new_context(**options).new_page()
    watch_errors(page)
    if script:
        page.add_init_script(script)
    page.goto(address)
    until(page, "document.getElementById('model').options.length > 0")
    return page


def watch_errors(page: Any) -> None:
    """Collect exceptions and errors of the console."""
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda line: page.errors.append(line.text) if line.type == "error" else None)


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's policy forbids Playwright's own waiting, which evaluates text."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, (condition, page.errors, page.inner_text("body"))
        time.sleep(0.05)


def until_stats(page: Any, beginning: str) -> None:
    """Wait until the line under the video begins with a state."""
    until(page, f"document.getElementById('stats').textContent.startsWith('{beginning}')")


def start(page: Any, prompt: str) -> None:
    """Type a prompt and press Enter."""
    page.fill("#steps", "6")
    page.fill("#prompt", prompt)
    page.press("#prompt", "Enter")


def finish(page: Any) -> None:
    """Stop the video that is rendered."""
    page.click("#stop")
    until_stats(page, "completed")


def drop_file(page: Any, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the page."""
    code = """([name, type, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
        return transfer;
    }"""
    transfer = page.evaluate_handle(code, [name, kind, list(data)])
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": transfer})
