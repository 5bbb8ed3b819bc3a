"""Pickled weights become safetensors, and nothing that is no tensor is read."""

from __future__ import annotations

from pathlib import Path

import published
import pytest
import torch
from command import pavdm
from safetensors.torch import load_file

from pavdm_cli.errors import ModelError
from pavdm_cli.models.convert import convert
from pavdm_cli.models.opensora_text import T5Text


def test_pickled_tensors_become_safetensors_and_nothing_else_does(tmp_path):
    weight = torch.rand(3, 4)
    torch.save({"state_dict": {"a": weight, "b": weight, "c": weight[:, 1:]}}, tmp_path / "model.pt")
    assert pavdm("models", "convert", tmp_path) == (0, f"{tmp_path / 'model.safetensors'}\n", "")
    found = load_file(tmp_path / "model.safetensors")
    assert torch.equal(found["a"], weight)
    assert torch.equal(found["b"], weight)
    assert torch.equal(found["c"], weight[:, 1:])
    with pytest.raises(ModelError, match="already"):
        convert(tmp_path)


def test_t5_as_it_is_published_pickled_in_shards_reads_a_prompt_once_converted(tmp_path):
    published.write(tmp_path)
    before = T5Text(tmp_path / "text_encoder", torch.device("cpu"), torch.float32).embed(["a boat"])[0]
    whole = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(whole)
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    whole.unlink()
    for part, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        torch.save({name: weights[name] for name in names}, whole.with_name(f"pytorch_model-{part}.bin"))
    reader = T5Text(tmp_path / "text_encoder", torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError, match="can run code"):
        reader.embed(["a boat"])
    assert len(convert(tmp_path / "text_encoder")) == 2
    assert torch.equal(reader.embed(["a boat"])[0], before)


class Evil:
    """Runs what it likes when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "model.bin")
    with pytest.raises(ModelError, match="more than tensors"):
        convert(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"\x80\x04broken")
    with pytest.raises(ModelError, match="more than tensors"):
        convert(tmp_path)
    torch.save([1, 2], tmp_path / "model.bin")
    with pytest.raises(ModelError, match="no list of tensors"):
        convert(tmp_path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError, match="no pickled weights"):
        convert(tmp_path / "nowhere")
