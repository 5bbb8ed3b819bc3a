"""Weights from a hub on localhost: downloaded, resumed after a cut, verified, used offline, removed."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from support import published
from support.command import pavdm
from support.models import MODELS, find, load
from support.repositories import Hub, serving, tamed
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.commands import models as models_command
from pavdm_cli.errors import ModelError, OutputError, PavdmError, UsageError
from pavdm_cli.hub import pull as pull_module
from pavdm_cli.hub import weights_dir as home_module
from pavdm_cli.hub.download import RemoteFile, download
from pavdm_cli.hub.pull import delete, find_problems, plan, pull, removal_target
from pavdm_cli.hub.weights_dir import weights_folder

SPEC = MODELS["opensora-v1.2"]
REPOS = {part.folder: part.repo for part in SPEC.parts}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    """The three repositories, with files nobody needs beside the weights."""
    files = {}
    for folder, repo in REPOS.items():
        files[repo] = {path.name: path.read_bytes() for path in (tiny / folder).iterdir()}
        files[repo] |= {"README.md": b"read me", ".gitattributes": b"", "old/model.safetensors": b"x" * 99}
    with serving(files) as hub:
        yield hub


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "user_cache_path", lambda *args, **options: tmp_path / "cache")
    tamed(monkeypatch, tmp_path)


def pulled(hub: Hub, folder: Path) -> int:
    """Pull everything; the bytes that came."""
    counts: list[int] = []
    pull(plan(SPEC, folder, hub.url), counts.append)
    return sum(counts)


def test_what_is_pulled_is_what_was_published_and_loads(hub, tiny, tmp_path):
    pull_plan = plan(SPEC, tmp_path / "here", hub.url)
    size = pull_plan.remaining
    assert pulled(hub, tmp_path / "here") == size
    files = {p.relative_to(tmp_path / "here").as_posix() for p in (tmp_path / "here").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tiny).as_posix() for p in tiny.rglob("*") if p.is_file()} | {"pavdm.json"}
    assert find_problems(tmp_path / "here") == []
    assert load(find(str(tmp_path / "here"))).transformer.config == published.STDIT


def test_a_second_pull_asks_for_nothing_and_needs_no_network(hub, tmp_path):
    pulled(hub, tmp_path)
    hub.asked.clear()
    assert pulled(hub, tmp_path) == 0
    assert hub.asked == []
    pull(plan(SPEC, tmp_path, "http://127.0.0.1:9"), lambda bytes: None)


def test_a_network_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = pavdm("models", "pull", "opensora-v1.2", "--dry-run")
    assert (result.code, result.out) == (5, "")
    assert "hint: check the network connection, or the proxy in HTTPS_PROXY; downloaded data is kept" in result.err


def test_a_pull_that_was_cut_continues_where_it_stopped(hub, tmp_path):
    whole = plan(SPEC, tmp_path, hub.url).remaining
    hub.left = whole // 2
    with pytest.raises(ModelError, match="cannot download") as excinfo:
        pulled(hub, tmp_path)
    assert "run the command again" in excinfo.value.hint
    hub.left = None
    there = plan(SPEC, tmp_path, hub.url).present_bytes
    assert whole // 2 - 1000 < there <= whole // 2
    hub.asked.clear()
    assert pulled(hub, tmp_path) == whole - there
    assert any(byte_range.startswith("bytes=") for _, byte_range in hub.asked)
    assert find_problems(tmp_path) == []
    assert not list(tmp_path.rglob("*.part"))


def test_a_pull_that_stopped_between_two_files_is_not_whole(hub, tmp_path, monkeypatch):
    files: list[RemoteFile] = []

    def two_and_no_more(file: RemoteFile, *args: object) -> str:
        if len(files) == 2:
            raise KeyboardInterrupt
        files.append(file)
        return download(file, *args)

    monkeypatch.setattr(pull_module, "download", two_and_no_more)
    with pytest.raises(KeyboardInterrupt):
        pulled(hub, tmp_path)
    assert find_problems(tmp_path) == ["files not downloaded yet"]
    monkeypatch.setattr(pull_module, "download", download)
    assert pulled(hub, tmp_path) > 0
    assert find_problems(tmp_path) == []


def test_offline_nothing_is_asked_for_and_what_is_there_is_taken(hub, tmp_path, monkeypatch):
    pulled(hub, tmp_path / "there")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pulled(hub, tmp_path / "there") == 0
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        pulled(hub, tmp_path / "elsewhere")
    assert hub.asked == []


def test_a_file_that_changed_on_disk_is_named_and_fetched_again(hub, tmp_path):
    pulled(hub, tmp_path)
    path = tmp_path / "vae" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert find_problems(tmp_path) == ["vae/model.safetensors"]
    path.write_bytes(whole[:-1])
    assert find_problems(tmp_path, hashes=False) == ["vae/model.safetensors"]
    assert pulled(hub, tmp_path) == len(whole)
    assert find_problems(tmp_path) == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_files_that_were_put_there_by_hand_are_hashed_instead_of_fetched(name, hub, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "here")
    other = tmp_path / "here" / "vae" / name
    other.write_bytes(bytes(other.stat().st_size))
    assert pulled(hub, tmp_path / "here") == other.stat().st_size
    assert other.read_bytes() == (tiny / "vae" / name).read_bytes()
    assert find_problems(tmp_path / "here") == []


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/etc/evil.bin", "a\\..\\evil.bin", "c:evil.bin"])
def test_a_published_name_that_leaves_its_folder_is_rejected(hub, name, tmp_path):
    hub.files[REPOS["vae"]][name] = b"evil"
    with pytest.raises(ModelError, match="leaves its folder"):
        plan(SPEC, tmp_path, hub.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil"])
def test_a_manifest_that_names_files_elsewhere_is_rejected(name, tmp_path):
    entry = {"url": "", "size": 0, "sha256": ""}
    (tmp_path / "pavdm.json").write_text(json.dumps({"files": {name: entry}, "whole": True}))
    with pytest.raises(ModelError, match="outside its folder"):
        find_problems(tmp_path)


def test_a_full_disk_is_told_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(pull_module, "free_space", lambda folder: 1000)
    with pytest.raises(OutputError, match=r"needs .* GB, but only 0\.0 GB is free"):
        pulled(hub, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_fetched_models_are_removed(hub, tiny):
    folder = weights_folder(SPEC)
    pulled(hub, folder)
    with pytest.raises(UsageError, match="pocket is bundled with this package"):
        delete(removal_target(MODELS["pocket"]))
    with pytest.raises(UsageError, match="not among the downloaded"):
        removal_target(find(str(tiny)))
    assert delete(removal_target(SPEC)) > 100_000
    assert not folder.exists()
    with pytest.raises(ModelError, match="no weights"):
        delete(removal_target(SPEC))


@pytest.mark.parametrize("name", ["pocket", SPEC.name])
def test_nobody_is_asked_to_delete_what_is_not_there_or_not_fetched(name):
    result = pavdm("models", "remove", name)
    assert result.code in (2, 5)
    assert "delete /" not in result.err
    assert "error: " in result.err


def test_of_a_linked_model_the_link_alone_is_removed_and_it_is_said_where_its_files_are(hub, tmp_path):
    pulled(hub, tmp_path / "disk")
    weights_folder(SPEC).parent.mkdir(parents=True)
    for target in ("disk", "nowhere"):
        weights_folder(SPEC).symlink_to(tmp_path / target)
        result = pavdm("models", "remove", SPEC.name, "--yes")
        assert (result.code, result.out) == (0, "")
        assert f"files remain in {tmp_path / target}" in result.err
        assert not weights_folder(SPEC).is_symlink()
    assert find_problems(tmp_path / "disk") == []


def test_what_cannot_be_deleted_is_one_clear_error(tmp_path, monkeypatch):
    weights_folder(SPEC).mkdir(parents=True)

    def refused(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(OutputError, match=r"cannot delete .*: Permission denied"):
        delete(removal_target(SPEC))


def test_every_hint_of_verify_leads_on(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    here = (tmp_path / "here").resolve()
    command = ("models", "pull", SPEC.name, "--folder", here)
    hint = f"`pavdm models pull {SPEC.name} --folder {here}`"
    own = pavdm("models", "verify", "pocket")
    assert (own.code, "models pull" in own.err, "comes with the package" in own.err) == (2, False, True)
    here.mkdir()
    assert hint in pavdm("models", "verify", here).err
    assert pavdm(*command).code == 0
    broken = here / "vae" / "config.json"
    broken.write_bytes(b"x" * broken.stat().st_size)
    assert (
        f"delete the files that are there, then run {hint} to download them again"
        in pavdm("models", "verify", here).err
    )
    broken.unlink()
    assert pavdm(*command).code == 0
    (here / "pavdm.json").write_text('{"files": ')
    for words in (("models", "verify", here), command):
        assert "hint: delete it and pull again" in pavdm(*words).err
    (here / "pavdm.json").unlink()
    assert pavdm(*command).code == 0
    assert pavdm("models", "verify", here).code == 0


def test_declining_a_license_names_the_option_that_accepts_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(PavdmError, match="aborted: nothing was changed") as excinfo:
        models_command._check_accepted(replace(SPEC, terms="a license"), accept=False)
    assert excinfo.value.hint == "use --accept-license to accept it without prompting"


def test_the_commands_pull_verify_show_and_remove(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    run = CliRunner()
    dry_run = run.invoke(app, ["models", "pull", "opensora-v1.2", "--dry-run"])
    assert "transformer/model.safetensors" in dry_run.stderr
    assert not weights_folder(SPEC).exists()
    assert run.invoke(app, ["models", "pull", "opensora-v1.2"]).stdout.strip() == str(weights_folder(SPEC))
    assert "match the published hashes" in run.invoke(app, ["models", "verify", "opensora-v1.2"]).stdout
    assert run.invoke(app, ["models", "path", "opensora-v1.2"]).stdout.strip() == str(weights_folder(SPEC))
    assert "hpcai-tech/OpenSora-VAE-v1.2" in run.invoke(app, ["models", "show", "opensora-v1.2"]).stdout
    (weights_folder(SPEC) / "vae" / "config.json").unlink()
    broken = run.invoke(app, ["models", "verify", "opensora-v1.2"])
    assert isinstance(broken.exception, PavdmError)
    assert "vae/config.json" in broken.exception.message
    assert run.invoke(app, ["models", "remove", "opensora-v1.2"], input="n\n").exit_code == 1
    assert weights_folder(SPEC).exists()
    assert run.invoke(app, ["models", "remove", "opensora-v1.2", "--yes"]).exit_code == 0
    assert not weights_folder(SPEC).exists()
