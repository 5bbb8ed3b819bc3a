"""Weights downloaded by huggingface_hub are used, listed and verified in place, and not downloaded again."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, try_to_load_from_cache
from support import published
from support.command import pavdm
from support.models import OPENSORA, load
from support.repositories import serving, tamed

from pavdm_cli.hub import cache as hub_cache
from pavdm_cli.hub.checkpoint import digest
from pavdm_cli.hub.pull import find_problems, plan, pull
from pavdm_cli.hub.weights_dir import download_folder, is_linked, require_weights, weights_folder
from pavdm_cli.models.spec import WeightPart

pytestmark = pytest.mark.usefixtures("own_cache")
NAME = OPENSORA.name
PLAN = ("generate", "a boat", "--model", NAME, "--size", "72x64", "--frames", "1", "--device", "cpu", "--plan")
TINY_TRANSFORMER = r"\ntransformer +- +- +1\.4 MB"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write(tmp_path_factory.mktemp("published") / "tiny", shards=2)


@pytest.fixture
def cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's client fills it, with the three parts at the pinned revisions."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for part in OPENSORA.parts:
        for file in (tiny / part.folder).iterdir():
            store(tmp_path / "hub", part, file.name, file.read_bytes())
    return tmp_path / "hub"


def store(cache: Path, part: WeightPart, name: str, data: bytes) -> Path:
    """A blob named by its hash, git's for a small file, and a link to it in the snapshot."""
    folder = cache / f"models--{part.repo.replace('/', '--')}"
    git = hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()
    blob = folder / "blobs" / (hashlib.sha256(data).hexdigest() if len(data) > 500 else git)
    link = folder / "snapshots" / part.revision / name
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def link_of(cache: Path, place: str) -> Path:
    folder, name = place.split("/")
    part = next(part for part in OPENSORA.parts if part.folder == folder)
    return cache / f"models--{part.repo.replace('/', '--')}" / "snapshots" / part.revision / name


def test_the_cache_is_laid_out_as_the_hubs_client_reads_it(cache):
    for part in OPENSORA.parts:
        path = try_to_load_from_cache(part.repo, "config.json", cache_dir=cache, revision=part.revision)
        assert path == str(hub_cache.cached_files(part)["config.json"])


def test_weights_in_the_hubs_cache_load_without_a_pull(cache, tiny):
    require_weights(OPENSORA)
    assert not download_folder(OPENSORA).exists()
    assert load(OPENSORA, torch.device("cpu")).transformer.config == published.STDIT
    assert digest(weights_folder(OPENSORA)) == digest(tiny)  # the same model as one that was pulled
    assert weights_folder(OPENSORA) == weights_folder(OPENSORA)


@pytest.mark.integration
def test_a_plan_by_name_is_of_the_weights_that_there_are_now(tiny):
    result = pavdm(*PLAN)
    assert "\ntransformer" in result.out, result.err
    assert not re.search(TINY_TRANSFORMER, result.out)  # of the published size
    download_folder(OPENSORA).parent.mkdir(parents=True)
    download_folder(OPENSORA).symlink_to(tiny)
    result = pavdm(*PLAN)
    assert re.search(TINY_TRANSFORMER, result.out), result.err


@pytest.mark.integration
def test_a_plan_by_name_is_of_the_weights_in_the_hubs_cache(cache):
    result = pavdm(*PLAN)
    assert re.search(TINY_TRANSFORMER, result.out), result.err


@pytest.mark.integration
def test_a_video_is_made_by_name_from_the_hubs_cache(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--size", "72x64", "--steps", "6", "--frames", "1", "--device", "cpu", "--threads", "1", "-o", "v.mp4")
    result = pavdm("generate", "a boat", "--model", NAME, *words)
    assert (result.code, result.out) == (0, "v.mp4\n"), result.err


def test_every_command_says_where_the_weights_are(cache):
    for words in (("list",), ("show", NAME)):
        assert "MB in the hub's cache" in " ".join(pavdm("models", *words).out.split())
    result = pavdm("models", "path", NAME)
    assert (result.out, f"{cache}\n" in result.err) == (f"{weights_folder(OPENSORA)}\n", True)
    result = pavdm("models", "verify", NAME)
    assert (result.code, "match the published hashes" in result.out) == (0, True), result.err
    result = pavdm("models", "remove", NAME, "--yes")
    assert result.code == 5
    assert f"`hf cache rm model/{OPENSORA.parts[0].repo} model/" in result.err
    assert link_of(cache, "vae/config.json").is_file()


def test_a_pull_of_what_the_hubs_cache_has_asks_for_nothing(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for words in ((), ("--dry-run",)):
        result = pavdm("models", "pull", NAME, *words)
        assert (result.code, result.out) == (0, f"{weights_folder(OPENSORA)}\n"), result.err
        assert "nothing to download" in result.err


@pytest.mark.parametrize(
    "place", ["transformer/model.safetensors.index.json", "vae/config.json", "text_encoder/spiece.model"]
)
def test_a_pull_takes_from_the_hubs_cache_what_it_has_and_fetches_the_rest(place, cache, tiny, tmp_path, monkeypatch):
    tamed(monkeypatch, tmp_path)
    link_of(cache, place).unlink()
    assert not is_linked(OPENSORA)
    repositories = {p.repo: {f.name: f.read_bytes() for f in (tiny / p.folder).iterdir()} for p in OPENSORA.parts}
    counts: list[int] = []
    with serving(repositories) as hub:
        pull_plan = plan(OPENSORA, download_folder(OPENSORA), hub.url)
        assert [file.path for file in pull_plan.missing] == [place]
        pull(pull_plan, counts.append)
    assert sum(counts) == (tiny / place).stat().st_size
    assert find_problems(download_folder(OPENSORA)) == []
    assert digest(download_folder(OPENSORA)) == digest(tiny)


def test_a_damaged_file_of_the_hubs_cache_is_found_and_not_taken(cache, tiny, tmp_path, monkeypatch):
    tamed(monkeypatch, tmp_path)
    path = link_of(cache, "vae/model.safetensors")
    path.resolve().write_bytes(bytes(path.stat().st_size))
    result = pavdm("models", "verify", NAME)
    assert result.code == 5
    assert "missing or changed: vae/model.safetensors\nhint: `hf cache rm " in result.err
    assert f"then run `pavdm models pull {NAME}` to download them again" in result.err
    repositories = {p.repo: {f.name: f.read_bytes() for f in (tiny / p.folder).iterdir()} for p in OPENSORA.parts}
    with serving(repositories) as hub:
        pull(plan(OPENSORA, tmp_path / "here", hub.url), lambda count: None)
    assert find_problems(tmp_path / "here") == []


@pytest.mark.parametrize(
    "lost",
    [
        "transformer/model-00002-of-00002.safetensors",
        "transformer/model.safetensors.index.json",
        "vae/config.json",
        "vae/model.safetensors",
        "text_encoder/spiece.model",
        "text_encoder/config.json",
    ],
)
@pytest.mark.parametrize("how", ["gone", "dangling"])
def test_a_cache_that_lacks_a_file_is_not_used(lost, how, cache):
    path = link_of(cache, lost)
    (path if how == "gone" else path.resolve()).unlink()
    assert not is_linked(OPENSORA)
    assert "not downloaded" in pavdm("models", "list").out
    assert pavdm("generate", "a boat", "--model", NAME).code == 5


@pytest.mark.parametrize(
    "index", ["", "[]", '{"weight_map": 1}', '{"weight_map": {"a": "b.safetensors"}}', "[" * 10_000]
)
def test_an_index_that_does_not_fit_is_no_whole_model(index, cache):
    link_of(cache, "transformer/model.safetensors.index.json").resolve().write_text(index)
    assert not is_linked(OPENSORA)


def test_another_revision_is_not_used(cache):
    snapshot = link_of(cache, "vae/config.json").parent
    snapshot.rename(snapshot.with_name("0" * 40))
    assert not is_linked(OPENSORA)


def test_what_was_pulled_comes_first(cache, tiny):
    download_folder(OPENSORA).parent.mkdir(parents=True)
    download_folder(OPENSORA).symlink_to(tiny)
    assert weights_folder(OPENSORA) == download_folder(OPENSORA)


def test_links_follow_a_cache_that_moved(cache, tmp_path, monkeypatch):
    before = weights_folder(OPENSORA)
    cache.rename(tmp_path / "moved")
    assert not is_linked(OPENSORA)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "moved"))
    assert weights_folder(OPENSORA) == before
    assert load(OPENSORA, torch.device("cpu"))


def test_a_folder_where_no_link_can_be_made_is_no_error(cache, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert weights_folder(OPENSORA) == download_folder(OPENSORA)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": ""},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HUB_CACHE": "$HOME/new", "HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"},
    ],
)
def test_the_cache_is_where_the_hubs_client_has_it(environment, monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code = Path(constants.__file__).read_text(encoding="utf-8")
    scope = {"__name__": "huggingface_hub.constants", "__package__": "huggingface_hub", "__file__": constants.__file__}
    exec(compile(code, constants.__file__, "exec"), scope)
    assert hub_cache.cache_root() == Path(scope["HF_HUB_CACHE"])
