"""The Wan family from a hub on the loopback: one repository with folders, at its latest commit, under a license."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import pavdm
from support.models import MODELS, find, load
from support.repositories import Hub, serving, tamed
from support.wan import tiny_transformer, write_checkpoint

from pavdm_cli.hub import cache as hub_cache
from pavdm_cli.hub.pull import find_problems

NAME = "skyreels-v2-df-1.3b"
REPO = MODELS[NAME].parts[0].repo

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    tiny = write_checkpoint(tmp_path / "published")
    files = {path.relative_to(tiny).as_posix(): path.read_bytes() for path in tiny.rglob("*") if path.is_file()}
    files |= {"README.md": b"read me", "assets/demo.mp4": b"x" * 999}
    tamed(monkeypatch, tmp_path)
    with serving({REPO: files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_license_commit_and_sizes_are_shown_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    result = pavdm("models", "pull", NAME, "--folder", tmp_path / "here", "--dry-run")
    assert result.code == 0, result.err
    assert "license: Skywork Community License" in result.err
    assert f"{REPO} at c0ffee" in result.err
    assert "GB to download" in result.err
    assert not (tmp_path / "here").exists()


def test_a_license_that_must_be_accepted_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    result = pavdm("models", "pull", NAME, "--folder", tmp_path / "here")
    assert result.code == 2
    assert "--accept-license" in result.err
    assert not any("/resolve/" in path for path, _ in hub.asked)


def test_what_is_pulled_loads(hub: Hub, tmp_path: Path) -> None:
    result = pavdm("models", "pull", NAME, "--folder", tmp_path / "here", "--accept-license")
    assert result.code == 0, result.err
    folders = {path.parent.name for path in (tmp_path / "here").rglob("*.safetensors")}
    assert folders == {"transformer", "vae", "text_encoder"}
    assert (tmp_path / "here" / "text_encoder" / "spiece.model").exists()  # of the repository's folder `tokenizer`
    assert find_problems(tmp_path / "here") == []
    assert load(find(str(tmp_path / "here"))).transformer.config == tiny_transformer().config
    assert not any("demo" in path or "README" in path for path, _ in hub.asked)


def test_the_hubs_own_cache_is_searched_at_the_commit_of_its_branch(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder, commit = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}", "ab" * 20
    tiny = write_checkpoint(tmp_path / "published")
    (folder / "snapshots").mkdir(parents=True)
    tiny.rename(folder / "snapshots" / commit)
    assert hub_cache.cached_model(MODELS[NAME]) == {}
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    files = hub_cache.cached_model(MODELS[NAME])
    assert {"transformer/config.json", "vae/model.safetensors", "text_encoder/spiece.model"} <= files.keys()
    assert load(find(NAME)).transformer.config == tiny_transformer().config
