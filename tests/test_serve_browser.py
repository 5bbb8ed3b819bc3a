"""The page of `pavdm serve` in real browsers: what a user sees and does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import (
    PLAYING,
    delete_unfinished,
    drop_file,
    finish,
    frame,
    open_page,
    run_browser,
    start,
    until,
    until_stats,
    watch_errors,
)
from support.serving import BALL, listening
from support.tiers import integration, long

STARTED_AT = "addEventListener('playing', ({ target }) => { window.startedAt ??= target.currentTime; }, true);"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", params=[*integration("chromium"), *long("firefox")])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    with run_browser(request.param) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = open_page(browser, address)
    yield page
    delete_unfinished(page)
    page.context.close()
    assert page.errors == []


@pytest.mark.parametrize("browser", integration("chromium", "firefox"), indirect=True)
def test_a_video_plays_while_it_is_rendered_and_follows_a_new_prompt(page: Any) -> None:
    start(page, BALL)
    until(page, PLAYING)
    before = frame(page)
    assert before.std() > 5
    page.fill("#prompt", "<b>at night</b>")
    page.press("#prompt", "Enter")
    until(page, "document.querySelectorAll('#prompts button').length === 2")
    assert page.text_content("#prompts li:last-child button") == "<b>at night</b>"
    changed_at = float(page.get_attribute("#prompts li:last-child button", "title").split()[0])
    until(page, f"video.buffered.end(0) > {changed_at + 2}")
    page.evaluate(f"video.pause(), video.currentTime = {changed_at + 1.9}")
    until(page, "!video.seeking")
    assert frame(page).mean() < before.mean() - 10  # night is darker
    page.click("#prompts li:first-child button")
    until(page, "video.currentTime === 0 && !video.seeking")
    page.add_init_script(STARTED_AT)
    page.reload()
    until(page, "window.startedAt !== undefined")
    assert page.evaluate("window.startedAt") > 2  # near the newest frame, not at the start
    page.click("#pause")
    until(page, "document.getElementById('pause').textContent === 'Resume'")
    page.click("#pause")
    finish(page)
    with page.expect_download() as download:
        page.click("#download")
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("browser", integration("chromium"), indirect=True)
def test_the_page_shows_what_the_model_was_given_and_the_notes(page: Any) -> None:
    page.select_option("#seconds", "4")
    page.fill("#seed", "6")
    start(page, "a green boat and a zebra")
    until(page, "document.getElementById('caption').textContent.startsWith('The model makes: a green boat ')")
    assert "does not know: zebra" in page.text_content("#notes li")
    until_stats(page, "completed")


def test_two_tabs_watch_and_steer_one_video(browser: Any, page: Any) -> None:
    start(page, BALL)
    until(page, PLAYING)
    other = page.context.new_page()
    watch_errors(other)
    other.goto(page.url)
    until(other, PLAYING)
    assert other.url == page.url
    other.fill("#prompt", "at night")
    other.click("#steer")
    for tab in (page, other):
        until(tab, "document.querySelectorAll('#prompts button').length === 2")
    finish(other)
    until_stats(page, "completed")
    assert other.errors == []


def test_a_finished_video_can_be_sought_extended_redone_and_deleted(page: Any) -> None:
    page.select_option("#seconds", "4")
    page.fill("#seed", "5")
    start(page, BALL)
    until_stats(page, "completed")
    page.reload()
    until(page, "video.duration > 3.9 && video.readyState > 1")
    first = frame(page)
    page.evaluate("video.pause(), video.currentTime = 3")
    until(page, "!video.seeking && video.currentTime === 3")
    assert np.abs(frame(page) - first).max() > 20
    page.fill("#from", "3.5")
    for action in ("redo", "extend"):
        address = page.url
        page.click(f"#{action}")
        until(page, f"location.href !== '{address}'")
        until(page, f"document.querySelector('#gallery [aria-current=true]').textContent.includes('{action}')")
        until_stats(page, "completed")
    page.click("#delete")
    until(page, "!document.querySelector('#gallery [aria-current=true]')")
    assert page.is_hidden("#finished")


def test_the_gallery_shows_partial_and_finished_videos_with_their_facts(page: Any) -> None:
    page.select_option("#seconds", "60")
    page.fill("#seed", "77")
    start(page, "a white boat on the sea at night")
    until(page, "document.querySelector('#gallery [aria-current=true] img')?.naturalWidth > 0")
    page.click("#pause")
    until_stats(page, "paused")
    entry = page.text_content("#gallery [aria-current=true]")
    facts = ("a white boat on the sea at night", "paused", "of 1:00 min", "384×256", "pocket", "seed 77")
    assert [fact for fact in facts if fact not in entry] == []
    page.reload()
    until(page, "video.duration > 2 && video.readyState > 1")  # what is rendered so far
    page.press("#gallery li:first-child button", "Enter")
    page.click("#pause")
    until(page, "document.getElementById('stats').textContent.startsWith('rendering')")
    until(page, PLAYING)
    page.evaluate("fetch('/v1/videos/' + location.hash.slice(1), { method: 'DELETE' })")
    until(page, "!document.querySelector('#gallery').textContent.includes('seed 77 ·')")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_dropped_file_is_continued(page: Any, kind: str, tmp_path: Path) -> None:
    from fractions import Fraction

    from pavdm_cli.video import VideoWriter

    pixels = np.full((64, 96, 3), (200, 90, 60), np.uint8)
    if kind == "image":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        drop_file(page, "sand.png", "image/png", buffer.getvalue())
    else:
        with VideoWriter(tmp_path / "sand.mp4", 96, 64, Fraction(8)) as writer:
            writer.write([pixels] * 8)
        drop_file(page, "sand.mp4", "video/mp4", (tmp_path / "sand.mp4").read_bytes())
    assert "sand" in page.text_content("#message")
    page.select_option("#seconds", "4")
    start(page, BALL)
    until(page, "video.readyState > 1")
    until_stats(page, "completed")
    assert ("extend" in page.text_content("#gallery [aria-current=true]")) == (kind == "video")
    assert page.is_hidden("#clear")


@pytest.mark.parametrize("browser", integration("chromium"), indirect=True)  # the other one emulates no phone
def test_a_phone_shows_everything_in_light_and_dark(browser: Any, address: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    page = open_page(browser, address, reduced_motion="reduce", **phone)  # colors change at once
    page.fill("#steps", "6")
    page.tap("#examples button")
    page.tap("#start")
    until(page, PLAYING)
    page.evaluate("document.querySelector('details').open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    outside = """[...document.querySelectorAll("main *, header *")].filter((node) => {
        const box = node.getBoundingClientRect();
        return box.width && (box.left < 0 || box.right > 390.5) && !node.closest("table");
    }).map((node) => node.id || node.tagName)"""
    assert page.evaluate(outside) == []
    heights = (
        "[...document.querySelectorAll('main button')].map((node) => node.offsetHeight).filter((height) => height)"
    )
    assert min(page.evaluate(heights)) >= 32
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert min(contrasts(page)) >= 4.5
        bright = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))[-60:].mean()
        assert (bright > 128) == (scheme == "light")
    finish(page)
    assert page.errors == []
    page.context.close()


def contrasts(page: Any) -> list[float]:
    """Contrast of the text of visible elements with what is behind it, by WCAG's formula."""
    return page.evaluate("""() => {
        const channels = (color) => color.match(/[\\d.]+/g).map(Number);
        const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        const behind = (node) => {
            for (; node; node = node.parentElement) {
                const color = channels(getComputedStyle(node).backgroundColor);
                if (color[3] !== 0) return color;
            }
        };
        const texts = [...document.querySelectorAll("h1, h2, p, label, a, .prompt, .facts, ol button")];
        return texts.filter((node) => node.offsetHeight && node.textContent.trim()).map((node) => {
            const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        });
    }""")


def test_the_keyboard_is_enough(page: Any) -> None:
    focused = "document.activeElement.id || document.activeElement.textContent"
    assert page.evaluate(focused) == "prompt"
    page.keyboard.type(BALL)
    page.keyboard.press("Enter")
    until(page, PLAYING)
    page.keyboard.press("Control+A")
    page.keyboard.type("at night")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#prompts button').length === 2")
    reach(page, "pause")
    page.keyboard.press("Space")
    until(page, "document.getElementById('pause').textContent === 'Resume'")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    until(page, "document.getElementById('pause').textContent === 'Pause'")
    reach(page, "stop")
    page.keyboard.press("Enter")
    until_stats(page, "completed")
    reach(page, "download")
    assert page.evaluate("document.activeElement.href").endswith("/content")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "extend"


def reach(page: Any, identifier: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == identifier:
            return
    raise AssertionError(f"{identifier} cannot be reached")


@pytest.mark.parametrize("browser", [*integration("chromium"), *long("firefox-still")], indirect=True)
def test_reduced_motion_plays_nothing_by_itself(browser: Any, address: str) -> None:
    page = open_page(browser, address, reduced_motion="reduce")
    page.select_option("#seconds", "4")
    start(page, BALL)
    until(page, PLAYING)  # it was asked for
    until_stats(page, "completed")
    page.reload()
    until(page, "video.readyState > 1")
    page.wait_for_timeout(300)
    assert page.evaluate("video.paused && video.currentTime === 0")
    durations = "[...document.querySelectorAll('*')].map((node) => getComputedStyle(node).transitionDuration)"
    assert set(page.evaluate(durations)) == {"0s"}
    page.context.close()
