"""A repository on localhost: listing, tokens, and downloads that resume after a cut or a kill."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repositories import Hub, serving, tamed

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.download import RemoteFile, download, git_blob_of, list_files, select_files
from pavdm_cli.models.spec import WeightPart

VAE = WeightPart("vae", "some/vae", "0" * 40)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One repository."""
    tamed(monkeypatch, tmp_path)
    weights = random.Random(0).randbytes(20_000)
    with serving({VAE.repo: {"model.safetensors": weights, "config.json": b"{}", "README.md": b"read me"}}) as hub:
        yield hub


def one(hub: Hub, name: str = "model.safetensors") -> RemoteFile:
    return next(file for file in list_files(VAE, hub.url) if file.path.endswith(name))


def test_a_connection_that_breaks_now_and_then_is_tried_again(hub, tmp_path):
    file, counts = one(hub), list[int]()
    hub.cut_after = file.size // 3 + 1
    download(file, tmp_path, counts.append)
    starts = [int(byte_range[6:-1] or 0) for _, byte_range in hub.asked if byte_range]
    assert starts == sorted({*starts})
    assert len(starts) >= 2
    assert sum(counts) == file.size


KILLED = """
    import sys
    from pathlib import Path
    from pavdm_cli.hub.download import RemoteFile, download
    file = RemoteFile("vae/model.safetensors", sys.argv[1], int(sys.argv[2]), "")
    download(file, Path(sys.argv[3]), lambda bytes: None)
"""


def test_a_file_cut_by_a_killed_process_continues_from_where_it_was(hub, tmp_path):
    hub.files[VAE.repo]["model.safetensors"] = bytes(range(256)) * (35 << 12)
    file = next(file for file in list_files(VAE, hub.url) if file.size > 30_000_000)
    hub.cut_after, hub.stalls = 25_000_000, True
    words = [sys.executable, "-c", textwrap.dedent(KILLED), file.url, str(file.size), str(tmp_path)]
    process = subprocess.Popen(words)
    part = tmp_path / "vae" / "model.safetensors.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < until:
        hub.gone.wait(0.05)
    process.kill()
    process.wait()
    have, hub.cut_after = part.stat().st_size, None
    assert 0 < have < file.size
    counts: list[int] = []
    download(file, tmp_path, counts.append)
    assert hub.asked[-1][1] == f"bytes={have}-"
    assert sum(counts) == file.size - have
    assert (tmp_path / file.path).read_bytes() == hub.files[VAE.repo]["model.safetensors"]


def test_a_token_opens_a_gated_repository_and_without_one_it_is_said_what_to_do(hub, tmp_path, monkeypatch):
    file, hub.token = one(hub), "hf_secret"
    with pytest.raises(ModelError, match="401 Unauthorized") as excinfo:
        download(file, tmp_path, lambda bytes: None)
    assert "HF_TOKEN" in excinfo.value.hint
    for token, status in (("", "401 Unauthorized"), ("hf_other", "403 Forbidden")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ModelError, match=status) as excinfo:
            list_files(VAE, hub.url)
        assert "accept the terms" in excinfo.value.hint
        assert "HF_TOKEN" in excinfo.value.hint
        assert "\n" not in excinfo.value.message
        assert token not in excinfo.value.message or not token
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert download(one(hub), tmp_path / "by variable", lambda bytes: None)
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(hub.token)
    assert download(one(hub), tmp_path / "by login", lambda bytes: None)


def test_fetching_prints_and_logs_nothing_even_when_it_is_tried_again(hub, tmp_path, capfd):
    file, records = one(hub), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append
    hub.cut_after = file.size // 3 + 1
    logging.getLogger("huggingface_hub").addHandler(handler)
    download(file, tmp_path, lambda bytes: None)
    logging.getLogger("huggingface_hub").removeHandler(handler)
    assert (records, capfd.readouterr()) == ([], ("", ""))


def test_a_server_that_cannot_continue_starts_again(hub, tmp_path):
    file = one(hub)
    part = tmp_path / f"{file.path}.part"
    part.parent.mkdir(parents=True)
    for data in (b"x" * (file.size + 5), b""):
        part.write_bytes(data)
        download(file, tmp_path, lambda bytes: None)
    assert not part.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_the_published_ones_are_thrown_away(name, hub, tmp_path):
    hub.broken, file = True, one(hub, name)
    with pytest.raises(ModelError, match="is corrupt"):
        download(file, tmp_path, lambda bytes: None)
    assert list((tmp_path / "vae").iterdir()) == []


def test_a_file_of_which_no_hash_is_given_is_rejected_before_it_is_fetched(hub):
    hub.hashes = False
    with pytest.raises(ModelError, match=r"no hash for model\.safetensors"):
        list_files(VAE, hub.url)


def test_a_blob_is_what_git_calls_it(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello world\n")
    assert git_blob_of(tmp_path / "hello") == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"


def test_pickled_weights_are_chosen_only_where_there_are_no_others():
    both = ["a.bin", "b.safetensors", "b.safetensors.index.json", "config.json", "README.md", "flax.msgpack"]
    assert select_files(both) == {"b.safetensors", "b.safetensors.index.json", "config.json"}
    assert select_files([n for n in both if not n.startswith("b")]) == {"a.bin", "config.json"}
    with pytest.raises(ModelError, match="no weights"):
        select_files(["README.md"])


def test_what_cannot_be_reached_is_one_clear_error(hub):
    for endpoint in ("http://127.0.0.1:9", f"{hub.url}/nowhere", "file:///etc"):
        with pytest.raises(ModelError) as excinfo:
            list_files(VAE, endpoint)
        assert "\n" not in excinfo.value.message
    with pytest.raises(ModelError, match="404"):
        list_files(WeightPart("vae", "no/body", "0" * 40), hub.url)
