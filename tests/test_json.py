"""`--json`: one object on stdout whose names and units are self-explanatory."""

from __future__ import annotations

import io
import json
import sys

import pytest
from support.clips import grays, make
from support.command import pavdm

from pavdm_cli.pocket_world.vocabulary import PHRASES

QUICK = ("--frames", "12", "--steps", "6", "--threads", "1", "--seed", "1", "--json")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def answer(*words):
    """What a command prints with --json."""
    done = pavdm(*words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_length_of_the_video_and_the_time_it_took_are_told_apart():
    row = json.loads(pavdm("generate", "a red ball over hills", *QUICK, "--warmup", "0").out)
    assert (row["frames"], row["video_seconds"]) == (12, 1.5)
    assert row["wall_seconds"] > 0
    assert "seconds" not in row


@pytest.mark.parametrize(("words", "seconds"), [((), 2.4 + 1.2), (("--only-new",), 1.2)])
def test_a_continuation_counts_what_is_in_its_file(words, seconds, tmp_path):
    make(tmp_path / "v.mp4", grays(24))  # at 10 frames/s
    row = json.loads(pavdm("extend", "v.mp4", "-p", "a red ball", *QUICK, *words).out)
    assert row["video_seconds"] == pytest.approx(seconds)


def test_the_doctor_tells_versions_devices_and_back_ends():
    report = answer("doctor")
    assert report["versions"]["torch"]
    assert "cpu" in report["devices"]
    assert report["attention backends"]["sdpa"]["usable"] is True
    assert report["attention backends"]["fa3"]["usable"] is False
    assert report["attention backends"]["fa3"]["reason"]


@pytest.mark.usefixtures("own_cache")
def test_the_models_are_listed_with_what_they_take_on_disk(tmp_path):
    (tmp_path / "cache" / "prompts").mkdir(parents=True)
    (tmp_path / "cache" / "prompts" / "a").write_bytes(b"x" * 1500)
    listing = answer("models", "list")
    pocket = next(one for one in listing["models"] if one["name"] == "pocket")
    assert (pocket["width"], pocket["height"], pocket["fps"]) == (96, 64, 8)
    assert pocket["bytes"] > 10e6
    assert listing["cache"] == {"folder": str(tmp_path / "cache"), "bytes": {"prompts": 1500}}
    assert "prompts  0.0 MB" in pavdm("models", "list").out
    details = answer("models", "show", "pocket")
    assert details["words"] == json.loads(json.dumps(PHRASES))
    assert answer("models", "path", "pocket") == {"model": "pocket", "folder": details["folder"]}


@pytest.mark.usefixtures("own_cache")
def test_the_cache_is_cleared_and_models_are_kept(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    for name in ("prompts", "tiles", "models"):
        (cache / name).mkdir(parents=True)
        (cache / name / "a").write_bytes(b"x" * 1500)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    err = pavdm("models", "remove", "--cache").err
    assert "aborted: nothing was changed\nhint: use --yes to delete without prompting" in err
    assert answer("models", "remove", "--cache", "--yes") == {
        "removed": [str(cache / "prompts"), str(cache / "tiles")],
        "freed_bytes": 3000,
    }
    assert [path.name for path in cache.iterdir()] == ["models"]
    monkeypatch.setenv("COLUMNS", "200")
    assert "Clear all caches (everything except downloaded models)" in pavdm("models", "remove", "--help").out
    assert answer("models", "remove", "--cache", "--yes")["removed"] == []
    assert pavdm("models", "remove").code == 2
