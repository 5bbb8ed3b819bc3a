"""T5's encoder against a recorded run of transformers, and prompts as it is given them."""

from __future__ import annotations

from pathlib import Path

import published
import pytest
import torch
from safetensors.torch import load_file

from pavdm_cli.errors import ModelError
from pavdm_cli.models import opensora_text
from pavdm_cli.models.opensora_text import T5Text, token_ids
from pavdm_cli.models.t5 import T5Config, T5Encoder

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write(tmp_path_factory.mktemp("published")) / "text_encoder"


def reader(folder: Path, cache: Path | None = None) -> T5Text:
    return T5Text(folder, CPU, torch.float32, cache)


def test_vectors_are_the_recorded_ones():
    case = load_file(GOLDEN / "t5_small.safetensors")
    small = T5Encoder(T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4))
    small.load_state_dict({name[2:]: value.float() for name, value in case.items() if name.startswith("w.")})
    torch.testing.assert_close(small(case["ids"])[:, ::8], case["out"], rtol=0, atol=1e-5)


def test_the_encoder_has_the_published_size():
    with torch.device("meta"):
        real = T5Encoder(T5Config())
    assert sum(p.numel() for p in real.parameters()) == 4_762_310_656
    assert "encoder.block.23.layer.1.DenseReluDense.wi_1.weight" in real.state_dict()


def test_a_prompt_ends_with_the_end_and_is_cut_at_300_tokens(folder):
    short, long = token_ids(folder, "a red balloon"), token_ids(folder, "a red balloon " * 200)
    assert short[-1] == long[-1] == 1
    assert 1 < len(short) < 20
    assert len(long) == 300
    assert long[: len(short) - 1] == short[:-1]


def test_a_prompt_is_cleaned_before_it_is_read(folder):
    vectors, mask = reader(folder).embed(["A RED balloon https://x.com/y"])
    assert torch.equal(vectors, reader(folder).embed(["a red balloon"])[0])
    assert mask.all()
    assert vectors.shape == (1, len(token_ids(folder, "a red balloon")), 32)


def test_prompts_read_together_are_what_each_is_alone(folder):
    prompts = ["a red balloon", "a small boat on calm water at night"]
    vectors, mask = reader(folder).embed(prompts)
    for row, shown, prompt in zip(vectors, mask, prompts, strict=True):
        assert torch.equal(row[shown], reader(folder).embed([prompt])[0][0])
        assert not row[~shown].any()


def test_vectors_are_kept_for_the_same_prompt_and_weights_only(folder, tmp_path, monkeypatch):
    before = reader(folder, tmp_path).embed(["a boat"])[0]
    loads = []
    plain = opensora_text.load_into
    monkeypatch.setattr(opensora_text, "load_into", lambda *given: loads.append(1) or plain(*given))
    assert torch.equal(reader(folder, tmp_path).embed(["a boat"])[0], before)
    assert loads == []
    reader(folder, tmp_path).embed(["a kite"])
    T5Text(folder, CPU, torch.bfloat16, tmp_path).embed(["a boat"])
    assert loads == [1, 1]


def test_vectors_that_cannot_be_kept_or_read_back_are_made_again(folder, tmp_path):
    before = reader(folder, tmp_path).embed(["a boat"])[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"broken")
    assert torch.equal(reader(folder, tmp_path).embed(["a boat"])[0], before)
    (tmp_path / "file").write_text("no folder")
    assert torch.equal(reader(folder, tmp_path / "file").embed(["a boat"])[0], before)


def test_a_tokenizer_that_is_missing_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer"):
        token_ids(tmp_path, "a boat")


def test_a_package_that_is_missing_is_named_with_what_installs_it(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ModelError, match="sentencepiece") as caught:
        token_ids(folder, "a boat")
    assert caught.value.hint == 'pip install "pavdm[opensora]"'
