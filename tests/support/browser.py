"""The page of `pavdm serve` in headless Chromium and Firefox."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
STILL = {"ui.prefersReducedMotion": 1}  # Playwright does not emulate the setting in an unmodified Firefox
FRAME = """() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 48, height: 32 });
    const context = canvas.getContext("2d");
    context.drawImage(document.getElementById("video"), 0, 0, 48, 32);
    return [...context.getImageData(0, 0, 48, 32).data];
}"""
LAUNCH_MS = 120_000  # Firefox begins with a new profile each time
PLAYING = "video.getVideoPlaybackQuality().totalVideoFrames > 4 && video.currentTime > 0.5 && !video.paused"


@contextmanager
def run_browser(kind: str) -> Iterator[Any]:
    """The system's "chromium", "firefox", or "firefox-still", which prefers reduced motion; skips the test without."""
    playwright = pytest.importorskip("playwright.sync_api")
    name = kind.partition("-")[0]
    if not (path := next(filter(None, map(shutil.which, NAMES[name])), None)):
        pytest.skip(f"there is no {name.capitalize()}")
    with playwright.sync_playwright() as running:
        if name == "chromium":
            browser = running.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS, timeout=LAUNCH_MS)
        else:  # the channel of unmodified builds, which are driven by WebDriver BiDi
            preferences = STILL if kind == "firefox-still" else {}
            browser = running.firefox.launch(
                channel="moz-firefox", executable_path=path, firefox_user_prefs=preferences, timeout=LAUNCH_MS
            )
            skip_unknown_commands(browser, playwright.Error)
        yield browser
        browser.close()


def skip_unknown_commands(browser: Any, error_type: type[Exception]) -> None:
    """Skip the test if Playwright needs a newer Firefox: what it sends for a new page has grown with the versions."""
    try:
        browser.new_context().close()
    except error_type as error:
        if "unknown command" not in str(error):
            raise
        pytest.skip(f"Firefox {browser.version} is too old for this version of Playwright")


def frame(page: Any) -> np.ndarray:
    """The frame that is shown."""
    return np.array(page.evaluate(FRAME), float)


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
    """Collect exceptions and errors of the console, with the address they are about."""
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))

    def on_console(line: Any) -> None:
        if line.type == "error":
            page.errors.append(f"{line.text} {line.location['url']}")

    page.on("console", on_console)


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's policy forbids Playwright's own waiting, which evaluates text."""
    deadline = time.monotonic() + 120
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


def delete_unfinished(page: Any) -> None:
    """Delete the videos that a failed test leaves, or those of the next tests would wait for them."""
    page.evaluate("""async () => {
        for (const { id, state } of (await (await fetch("/v1/videos?limit=100")).json()).data)
            if (!["completed", "failed"].includes(state)) await fetch(`/v1/videos/${id}`, { method: "DELETE" });
    }""")


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
