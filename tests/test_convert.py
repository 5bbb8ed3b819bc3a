"""Pickled weights are converted to safetensors; nothing but tensors is read."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import published
from support.command import pavdm

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.convert import convert
from pavdm_cli.models.opensora.text_encoder import open_text_encoder


def test_pickled_tensors_become_safetensors_and_nothing_else_does(tmp_path):
    weight = torch.rand(3, 4)
    torch.save({"state_dict": {"a": weight, "b": weight, "c": weight[:, 1:]}}, tmp_path / "model.pt")
    assert pavdm("models", "convert", tmp_path) == (0, f"{tmp_path / 'model.safetensors'}\n", "")
    tensors = load_file(tmp_path / "model.safetensors")
    assert torch.equal(tensors["a"], weight)
    assert torch.equal(tensors["b"], weight)
    assert torch.equal(tensors["c"], weight[:, 1:])
    with pytest.raises(ModelError, match="already"):
        convert(tmp_path)


def test_t5_as_it_is_published_pickled_in_shards_reads_a_prompt_once_converted(tmp_path):
    published.write(tmp_path)
    before = (
        open_text_encoder(tmp_path / "text_encoder", torch.device("cpu"), torch.float32).encode(["a boat"])[0].embeds
    )
    whole = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(whole)
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    whole.unlink()
    for part, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        torch.save({name: weights[name] for name in names}, whole.with_name(f"pytorch_model-{part}.bin"))
    reader = open_text_encoder(tmp_path / "text_encoder", torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError, match="can run code"):
        reader.encode(["a boat"])
    assert len(convert(tmp_path / "text_encoder")) == 2
    assert torch.equal(reader.encode(["a boat"])[0].embeds, before)


class Evil:
    """Runs what it likes when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)


def test_a_pickle_that_would_run_something_is_rejected_and_runs_nothing(tmp_path, monkeypatch):
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
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no pickled weights"):
        convert(tmp_path / "empty")
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        convert(tmp_path / "nowhere")


def selfref() -> dict[str, object]:
    loop: dict[str, object] = {}
    loop["model"] = loop
    return loop


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {"a": torch.ones(2)}
    for _ in range(depth):
        value = {"model": value}
    return value


HOSTILE = {
    "a self-reference": selfref,
    "deep nesting": lambda: nested(200),
    "an expanded tensor": lambda: {"a": torch.ones(1).expand(1 << 40)},
    "expanded rows": lambda: {"a": torch.ones(1, 64).expand(1 << 30, 64)},
    "many views of one storage": lambda: dict.fromkeys(map(str, range(3000)), torch.ones(1 << 18)),
    "a sparse tensor": lambda: {"a": torch.sparse_coo_tensor([[0], [0]], [1.0], (1 << 30, 1 << 30))},
    "a compressed sparse tensor": lambda: {"a": torch.eye(4).to_sparse_csr()},
    "a quantised tensor": lambda: {"a": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)},
    "a complex tensor": lambda: {"a": torch.ones(4, dtype=torch.complex64)},
    "a tensor without values": lambda: {"a": torch.ones(4, device="meta")},
    "a number as a name": lambda: {1: torch.ones(2), "1": torch.ones(2)},
    "a name that is reserved": lambda: {"__metadata__": torch.ones(2)},
    "a name that is no text": lambda: {"\ud800": torch.ones(2)},
    "a name with an escape": lambda: {"a\x1b[2J": torch.ones(2)},
    "a list": lambda: [torch.ones(2)],
    "a number": lambda: {"a": 1},
    "nothing": dict,
    "a tensor alone": lambda: torch.ones(2),
    "many bytes": lambda: {"a": bytearray(10)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_a_dict_of_tensors_is_rejected_in_one_line_and_nothing_is_written(name, tmp_path):
    torch.save(HOSTILE[name](), tmp_path / "model.pt")
    start = time.monotonic()
    result = pavdm("models", "convert", tmp_path)
    assert (result.code, result.out) == (5, "")
    assert "error: " in result.err
    assert "Traceback" not in result.err
    assert time.monotonic() - start < 5
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_compressed_archive_is_rejected_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 20_000_000)
    with pytest.raises(ModelError, match="compressed"):
        convert(tmp_path)


def test_bytes_that_a_pickle_asks_for_are_not_made(tmp_path):
    pickled = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01cbuiltins\nbytearray\nq\x02\x8a\x05\x00\x00\x00\x00\x20\x85R s."
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    with pytest.raises(ModelError, match="more than tensors"):
        convert(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names elsewhere")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.bin")
    with pytest.raises(ModelError, match="regular file"):
        convert(tmp_path)


def test_tied_and_transposed_weights_and_parameters_are_converted(tmp_path):
    table = torch.rand(300, 40)
    torch.save({"a": table, "b": table, "c": table.T, "d": torch.nn.Parameter(table)}, tmp_path / "model.pt")
    convert(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert torch.equal(tensors["c"], table.T)
    assert torch.equal(tensors["d"], table)
