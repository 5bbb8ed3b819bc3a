"""Impossible numbers and paths are rejected at once, with one line and exit code 2 or 3."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import pytest
from support.command import pavdm
from support.tiers import integration

from pavdm_cli.errors import InputError, ModelError
from pavdm_cli.hub.download import select_files
from pavdm_cli.training.finetune.dataset import find_captioned_videos

NUMBERS = {
    "generate": (
        *("--seconds", "--frames", "--seed", "--steps", "--window", "--chunk", "--guidance", "--fps", "--threads"),
        *("--crf", "--aesthetic-score", "--motion-score", "--edit-ratio"),
    ),
    "extend": ("--seconds", "--frames", "--seed", "--steps", "--window", "--chunk", "--guidance", "--threads", "--crf"),
    "train vae": ("--steps", "--learning-rate", "--batch-size", "--detail", "--threads", "--sheet-minutes"),
    "train denoiser": (
        "--steps",
        "--learning-rate",
        "--batch-size",
        "--clips",
        "--detail",
        "--distill-guidance",
        "--sheet-minutes",
    ),
    "bench throughput": ("--seconds", "--samples", "--steps", "--window", "--chunk", "--guidance", "--threads"),
    "bench latency": ("--seconds", "--repeat", "--steps", "--window", "--chunk", "--guidance", "--threads"),
}
ARGUMENTS = {"generate": ("a red ball",), "extend": ("missing.mp4",)}
CASES = [(verb, option) for verb, options in NUMBERS.items() for option in options]


@pytest.mark.parametrize("value", ["nan", "-1", *integration("-inf", "9" * 400)])
@pytest.mark.parametrize(("verb", "option"), CASES)
def test_a_number_that_cannot_be_meant_is_rejected_at_once(verb, option, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    result = pavdm(*verb.split(), *ARGUMENTS.get(verb, ()), f"{option}={value}")
    assert result.code in ((2, 3) if verb == "extend" else (2,)), result
    assert result.err.startswith("error: ") or "\nerror: " in result.err
    assert "a bug in pavdm" not in result.err
    assert time.monotonic() - start < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names elsewhere")
def test_captions_in_a_pipe_are_not_waited_for(tmp_path):
    (tmp_path / "a.mp4").touch()
    os.mkfifo(tmp_path / "a.txt")
    assert find_captioned_videos(tmp_path, bool)[0] == []
    os.mkfifo(tmp_path / "captions.csv")
    result = pavdm("train", "denoiser", "--init", "opensora-v1.2", "--data", tmp_path, "--output-dir", tmp_path / "run")
    assert result.code in (3, 5)


@pytest.mark.parametrize("row", ["a\0b.mp4,x", "a.mp4", ",,,,", '"', "a.mp4,\ud800", "\0,\0"])
def test_a_table_of_odd_captions_gives_no_traceback(tmp_path, row):
    (tmp_path / "captions.csv").write_bytes(b"path,text\n" + row.encode("utf-8", "surrogatepass"))
    with suppress(InputError):
        assert find_captioned_videos(tmp_path, bool)[0] == []


@pytest.mark.parametrize("name", ["a\0.safetensors", "a\x1b[2J.safetensors", "../a.safetensors", "a\n.safetensors"])
def test_a_published_file_with_an_odd_name_is_rejected(name):
    with pytest.raises(ModelError):
        select_files(["model.safetensors", name])
