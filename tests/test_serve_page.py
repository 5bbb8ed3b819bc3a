"""The page of `pavdm serve` as it is sent, and the API with OpenAI's own client."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import BALL, QUICK, listening, serving

TOKEN = "a-token-that-is-long"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with listening(tmp_path) as address:
        yield address


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
        assert "Secure" not in response.headers["set-cookie"]
        assert client.get("/").status_code == 200
        assert client.get("/v1/videos").status_code == 200
        forwarded = {"x-forwarded-proto": "https"}  # by a proxy with TLS
        safe = client.get("/", params={"token": TOKEN}, headers=forwarded, follow_redirects=False)
        assert "Secure" in safe.headers["set-cookie"].split("; ")


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
        assert [item.id for item in client.videos.list()] == [remix.id, video.id]
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video.id)
        with pytest.raises(openai.BadRequestError, match="no model"):
            client.videos.create(model="sora-2", prompt=BALL, seconds="4", size="720x1280")
        client.close()
