"""umT5 against a recording of the original encoder, prompts cleaned as recorded, and their padding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.wan import GOLDEN, golden, index, tiny_transformer, tiny_vae, umt5_weights, write_checkpoint

from pavdm_cli.models import t5
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.wan import text_encoder
from pavdm_cli.models.wan.loaded import LoadedWan
from pavdm_cli.models.wan.names import transformers_name
from pavdm_cli.models.wan.prompt import clean
from pavdm_cli.models.wan.text_encoder import PARAMETERS, XXL, build, text_digest, truncation_note

CPU = torch.device("cpu")
PAIRS = json.loads((GOLDEN / "text.json").read_text())["pairs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wan") / "tiny")


def test_prompts_are_cleaned_as_recorded() -> None:
    assert len(PAIRS) == 50
    assert [clean(text) for text, _ in PAIRS] == [expected for _, expected in PAIRS]
    assert clean("&#" + "9" * 5000 + ";")  # a number that Python refuses to read


def test_names_of_both_layouts_become_those_of_transformers() -> None:
    names = index()["umt5"]["names"]
    assert {name: transformers_name(name) for name in names} == names
    assert {transformers_name(name) for name in names.values()} == set(names.values())
    assert umt5_weights().keys() == names.keys()


@torch.no_grad()
def test_vectors_are_the_recorded_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden("umt5")
    for ids, mask, expected in zip(case["ids"], case["mask"], case["context"], strict=True):
        own = ids[mask.bool()].tolist()
        monkeypatch.setattr(t5, "token_ids", lambda tokenizer, text, limit, own=own: own)
        (encoded,) = text_encoder.open_text_encoder(folder, CPU, torch.float32).encode(["any"])
        torch.testing.assert_close(encoded.embeds, expected[: len(own)], rtol=0, atol=2e-5)
        assert not expected[len(own) :].any()


def test_both_layouts_give_the_same_vectors_which_are_cached(folder: Path, tmp_path: Path, monkeypatch) -> None:
    original = write_checkpoint(tmp_path / "original", "original")
    prompt, cache = "a red  balloon &amp; a boat", tmp_path / "cache"
    first, second = (
        text_encoder.open_text_encoder(path, CPU, torch.float32, cache).encode([prompt])[0]
        for path in (folder, original)
    )
    assert torch.equal(first.embeds, second.embeds)
    monkeypatch.setattr(text_encoder, "load_stored", None)
    again = text_encoder.open_text_encoder(folder, CPU, torch.float32, cache)
    assert again.memory_bytes("a red balloon & a boat") == {}
    assert torch.equal(again.encode(["a red balloon & a boat"])[0].embeds, first.embeds)
    assert again.memory_bytes("another")["weights"] == 4 * sum(w.numel() for w in umt5_weights().values())


def test_another_tokenizer_makes_other_vectors(folder: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other")
    before = text_digest(other)
    (other / "tokenizer" / "spiece.model").write_bytes(b"other")
    assert text_digest(other) != before == text_digest(folder)


def test_a_prompt_has_512_rows_with_zeros_after_its_own() -> None:
    model = LoadedWan(tiny_transformer(), tiny_vae("2.1"), Path())
    short, long = torch.ones(3, 32), torch.ones(512, 32)
    rows = model.pad_batch([TextEmbedding(short), TextEmbedding(long), model.unconditional(None, None)])
    assert rows.shape == (3, 512, 32)
    assert rows.sum(dim=(1, 2)).tolist() == [3 * 32, 512 * 32, 0]
    assert rows[0, :3].all()


def test_a_prompt_that_is_too_long_is_cut_with_a_note(folder: Path) -> None:
    assert truncation_note(folder, "a boat") == []
    (note,) = truncation_note(folder, "boat " * 600)
    assert "the model reads 512" in note
    (encoded,) = text_encoder.open_text_encoder(folder, CPU, torch.float32).encode(["boat " * 600])
    assert len(encoded.embeds) == 512


def test_the_encoder_has_the_published_size() -> None:
    with torch.device("meta"):
        real = build(XXL)
    assert sum(weight.numel() for weight in real.parameters()) == PARAMETERS == 5_680_910_336
