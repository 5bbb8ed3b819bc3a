"""The page of `pavdm serve`, and its video in a real browser; the API with OpenAI's own client."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from support.serving import BALL, QUICK, serving

from pavdm_cli.serve.app import create_app
from pavdm_cli.serve.settings import ServeSettings

TOKEN = "a-token-that-is-long"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server on a port of its own."""
    app = create_app(ServeSettings(tmp_path, device="cpu", port=0))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.service.hub.close_all()
    server.should_exit = True
    thread.join()


def test_the_page_loads_only_its_own_files(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        names = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
        modules = [client.get(name) for name in names]
        imports = {part for file in modules for part in re.findall(r'from "\./([^"]+)"', file.text)}
        modules += [client.get(f"/page/{name}") for name in imports]
        assert {"api.js", "player.js", "views.js"} <= imports
        assert all(file.status_code == 200 for file in modules)
        for file in (page, *modules):
            assert not re.search(r"https?://|innerHTML|<script>| style=| on\w+=\"", file.text)
        ids = set(re.findall(r'\$\("([\w-]+)"\)', modules[names.index("/page/main.js")].text))
        assert ids <= set(re.findall(r'id="([\w-]+)"', page.text))
        for name in ("../app.py", "%2e%2e%2fapp.py", "none.js"):
            assert client.get(f"/page/{name}").status_code == 404


def test_the_token_in_the_address_becomes_a_cookie(tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0", token=TOKEN) as client:
        assert client.get("/").status_code == 401
        assert client.get("/", params={"token": "wrong"}).status_code == 401
        response = client.get("/", params={"token": TOKEN}, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=strict"} <= set(response.headers["set-cookie"].split("; "))
        assert client.get("/").status_code == 200
        assert client.get("/v1/videos").status_code == 200


@pytest.mark.integration
def test_the_openai_client_works_unchanged(address: str) -> None:
    openai = pytest.importorskip("openai")
    options = {"extra_body": {"options": json.dumps(QUICK | {"frames": 8})}}  # the client sends a form
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
        video = client.videos.create(model="pocket", prompt=BALL, **options)
        video = client.videos.poll(video.id, poll_interval_ms=20)
        assert (video.status, video.progress, video.object) == ("completed", 100, "video")
        assert client.videos.download_content(video.id).read()[4:8] == b"ftyp"
        remix = client.videos.poll(client.videos.remix(video.id, prompt="at night").id, poll_interval_ms=20)
        assert (remix.status, remix.remixed_from_video_id) == ("completed", video.id)
        assert [one.id for one in client.videos.list()] == [remix.id, video.id]
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video.id)
        with pytest.raises(openai.BadRequestError, match="no model"):
            client.videos.create(model="sora-2", prompt=BALL, seconds="4", size="720x1280")
        client.close()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The page in headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda line: page.errors.append(line.text) if line.type == "error" else None)
        page.goto(address)
        yield page
        browser.close()


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's policy forbids Playwright's own waiting, which evaluates text."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, (condition, page.errors, page.inner_text("body"))
        time.sleep(0.05)


@pytest.mark.integration
def test_a_video_plays_while_it_is_made_and_follows_a_new_prompt(page: Any) -> None:
    page.fill("#steps", "6")
    page.fill("#prompt", BALL)
    page.keyboard.press("Enter")
    until(page, "video.getVideoPlaybackQuality().totalVideoFrames > 4 && video.currentTime > 0.5")
    page.fill("#prompt", "<b>at night</b>")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#timeline span').length === 2")
    assert page.text_content("#timeline span:last-child") == "<b>at night</b>"
    page.reload()
    until(page, "video.currentTime > 1 && !video.paused")
    page.click("#pause")
    until(page, "document.getElementById('pause').textContent === 'Resume'")
    page.click("#pause")
    page.click("#stop")
    until(page, "document.getElementById('stats').textContent.startsWith('completed')")
    with page.expect_download() as download:
        page.click("#download")
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    assert page.locator("#gallery button").count() == 1
    assert page.errors == []
