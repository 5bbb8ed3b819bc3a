"""How the page of `pavdm serve` plays video in browsers that lack a codec, memory or Media Source Extensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from support.browser import PLAYING, finish, frame, open_page, run_browser, start, until, until_stats
from support.serving import BALL, listening, submit, wait_for
from support.tiers import integration, long

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NO_H264 = """
    const supported = MediaSource.isTypeSupported, playable = HTMLMediaElement.prototype.canPlayType;
    MediaSource.isTypeSupported = (type) => !/avc1/.test(type) && supported.call(MediaSource, type);
    HTMLMediaElement.prototype.canPlayType = function (type) {
        return /avc1|mp4/.test(type) ? "" : playable.call(this, type);
    };
"""
NO_CODEC = """
    MediaSource.isTypeSupported = () => false;
    HTMLMediaElement.prototype.canPlayType = () => "";
"""
NO_SOURCE = "delete window.MediaSource; delete window.ManagedMediaSource;"
# Seconds that are loaded when playback starts, and milliseconds since the first frame.
LOADED = """
    let first;
    const play = HTMLMediaElement.prototype.play;
    addEventListener("loadeddata", () => { first ??= performance.now(); }, true);
    HTMLMediaElement.prototype.play = function () {
        const { buffered, currentTime } = this;
        window.played ??= [buffered.end(buffered.length - 1) - currentTime, performance.now() - first];
        return play.call(this);
    };
"""
# Nothing plays before the test allows it.
STILL = """
    const play = HTMLMediaElement.prototype.play;
    window.allowed = false;
    HTMLMediaElement.prototype.play = function () { return allowed ? play.call(this) : Promise.resolve(); };
"""
# As in Safari: it needs more only while almost nothing is buffered, and works only without remote playback.
MANAGED = """
    window.sources = [];
    window.ManagedMediaSource = class extends MediaSource {
        constructor() {
            super();
            sources.push(this);
            const video = document.getElementById("video");
            this.addEventListener("sourceopen", () => { this.allowed = video.disableRemotePlayback; });
        }
        get streaming() { return false; }
        addSourceBuffer(type) {
            if (!this.allowed) throw new Error("remote playback is not disabled");
            return super.addSourceBuffer(type);
        }
    };
"""
# The memory for frames is full until the test allows more.
FULL = """
    const append = SourceBuffer.prototype.appendBuffer;
    window.refused = 0;
    SourceBuffer.prototype.appendBuffer = function (data) {
        if (allowed) return append.call(this, data);
        refused += 1;
        throw new DOMException("full", "QuotaExceededError");
    };
"""


@pytest.fixture(scope="module", params=[*integration("chromium"), *long("firefox")])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    with run_browser(request.param) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture(scope="module")
def finished(address: str) -> str:
    """The id of a video of 4 s that is complete."""
    with httpx.Client(base_url=address) as client:
        video_id = submit(client, frames=32)
        wait_for(client, video_id, "completed")
    return video_id


def test_a_browser_without_h264_plays_vp9(browser: Any, address: str) -> None:
    page = open_page(browser, address, NO_H264)
    types: list[str] = []
    page.on("response", lambda response: types.append(response.headers.get("content-type", "")))
    page.select_option("#seconds", "4")
    start(page, BALL)
    until(page, PLAYING)
    assert 'video/webm; codecs="vp9"' in types
    assert frame(page).std() > 5
    until_stats(page, "completed")
    types.clear()
    page.reload()
    until(page, "video.duration > 3.9 && video.readyState > 1")
    assert 'video/webm; codecs="vp9"' in types
    page.evaluate("video.currentTime = 3")
    until(page, "!video.seeking && video.readyState > 1 && video.currentTime >= 3")
    assert frame(page).std() > 5
    assert page.errors == []
    page.context.close()


def test_a_browser_without_a_codec_says_so_and_downloads(browser: Any, address: str) -> None:
    page = open_page(browser, address, NO_CODEC)
    page.select_option("#seconds", "4")
    start(page, BALL)
    until(page, "document.getElementById('message').textContent.includes('plays neither H.264 nor VP9')")
    until_stats(page, "completed")
    assert page.is_visible("#download")
    assert page.errors == []
    page.context.close()


def test_a_browser_without_media_source_plays_the_finished_file(browser: Any, address: str) -> None:
    page = open_page(browser, address, NO_SOURCE)
    page.select_option("#seconds", "4")
    start(page, BALL)
    until(page, "document.getElementById('message').textContent.includes('lacks Media Source Extensions')")
    until_stats(page, "completed")
    until(page, PLAYING)
    assert page.errors == []
    page.context.close()


@pytest.mark.parametrize("browser", integration("chromium"), indirect=True)
def test_playback_starts_once_a_second_is_loaded_or_nothing_more_comes(browser: Any, address: str) -> None:
    page = open_page(browser, address, LOADED)
    start(page, BALL)
    until(page, "window.played")
    loaded, waited = page.evaluate("window.played")
    assert loaded >= 1 or waited >= 1900
    until(page, PLAYING)
    finish(page)
    page.context.close()


@pytest.mark.parametrize(
    ("script", "waits"),
    [(MANAGED, "video.buffered.length && sources[0].readyState === 'open'"), (FULL, "refused > 1")],
    ids=["managed", "full"],
)
def test_a_buffer_gets_data_when_it_has_room(
    browser: Any, address: str, finished: str, script: str, waits: str
) -> None:
    page = open_page(browser, f"{address}#{finished}", NO_H264 + STILL + script)
    until(page, waits)
    page.wait_for_timeout(1500)
    assert page.evaluate(waits)
    page.evaluate("window.allowed = true, video.play(), 1")
    until(page, "video.ended")
    assert page.evaluate("video.currentTime") > 3.9
    assert page.text_content("#message") == ""
    assert page.errors == []
    page.context.close()
