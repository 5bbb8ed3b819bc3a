"""T5's encoder against a recorded run of transformers, and its prompts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import published

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import load_into
from pavdm_cli.models import t5
from pavdm_cli.models.opensora import text_encoder
from pavdm_cli.models.opensora.text_encoder import MAX_TOKENS, UNUSED, activation_bytes, build, load_tokenizer
from pavdm_cli.models.t5 import T5TextEncoder
from pavdm_cli.runtime.install_hints import install_command

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write(tmp_path_factory.mktemp("published")) / "text_encoder"


def reader(folder: Path, cache: Path | None = None) -> T5TextEncoder:
    return text_encoder.open_text_encoder(folder, CPU, torch.float32, cache)


def token_ids(folder: Path, text: str) -> list[int]:
    return t5.token_ids(load_tokenizer(folder), text, MAX_TOKENS)


SMALL = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
GATED = {"feed_forward_proj": "gated-gelu"}


def embed(encoder: T5TextEncoder, prompt: str) -> torch.Tensor:  # (L, width)
    return encoder.encode([prompt])[0].embeds


def test_vectors_are_the_recorded_ones(tmp_path):
    case = load_file(GOLDEN / "t5_small.safetensors")
    stored = {name[2:]: value.float() for name, value in case.items() if name.startswith("w.")}
    published.part(tmp_path / "t5", stored, {})
    small = load_into(lambda: build(SMALL | GATED), tmp_path / "t5", CPU, torch.float32, UNUSED)
    small.tie_weights()
    vectors = small(case["ids"]).last_hidden_state
    torch.testing.assert_close(vectors[:, ::8], case["out"], rtol=0, atol=1e-5)
    assert not vectors.requires_grad


def test_the_encoder_has_the_published_size():
    with torch.device("meta"):
        real = build(XXL | GATED)
    assert sum(p.numel() for p in real.parameters()) == 4_762_310_656
    assert "encoder.block.23.layer.1.DenseReluDense.wi_1.weight" in real.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_of_the_encoder_is_left_out_or_in_another_precision_or_there_twice(folder, monkeypatch, dtype):
    loaded = []
    plain = text_encoder.load_into
    monkeypatch.setattr(text_encoder, "load_into", lambda *args: loaded.append(plain(*args)) or loaded[0])
    assert text_encoder.open_text_encoder(folder, CPU, dtype).encode(["a boat"])[0].embeds.dtype == dtype
    model = loaded[0]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    assert [name for name, value in tensors if value.is_meta or value.dtype != dtype] == []
    assert model.shared.weight.data_ptr() == model.encoder.embed_tokens.weight.data_ptr()


ODD = [("d_model", "many"), ("num_layers", 2.5), ("vocab_size", -3), ("feed_forward_proj", "gated-nothing")]
WRONG = [("d_ff", "x"), ("d_model", None), ("num_layers", 10**8), ("num_heads", True), ("d_kv", 8.0)]
WRONG += [("layer_norm_epsilon", float("nan")), ("relative_attention_max_distance", 8)]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_size_is_named_before_anything_is_computed_from_it(name, value):
    for compute in (build, lambda config: activation_bytes(config, torch.float32)):
        with pytest.raises(ModelError, match=f"T5's configuration is invalid: {name} is"):
            compute(SMALL | GATED | {name: value})


@pytest.mark.parametrize(("name", "value"), ODD)
def test_a_size_that_makes_no_sense_is_one_clear_error(name, value):
    with pytest.raises(ModelError, match="is invalid"):
        build(SMALL | GATED | {name: value})


def test_a_configuration_gives_sizes_and_nothing_that_runs_other_code():
    with torch.device("meta"):
        model = build(SMALL | GATED | {"attn_implementation": "somebody/kernels", "auto_map": {"AutoModel": "a.b"}})
    assert model.config._attn_implementation == "sdpa"
    assert not hasattr(model.config, "auto_map")


def test_reading_a_prompt_prints_nothing(folder, capfd):
    embed(reader(folder), "a boat")
    assert capfd.readouterr() == ("", "")


def test_a_prompt_ends_with_the_end_and_is_cut_at_300_tokens(folder):
    short, long = token_ids(folder, "a red balloon"), token_ids(folder, "a red balloon " * 200)
    assert short[-1] == long[-1] == 1
    assert 1 < len(short) < 20
    assert len(long) == 300
    assert long[: len(short) - 1] == short[:-1]


def test_a_prompt_is_cleaned_before_it_is_read(folder):
    rows = embed(reader(folder), "A RED balloon https://x.com/y")
    assert torch.equal(rows, embed(reader(folder), "a red balloon"))
    assert rows.shape == (len(token_ids(folder, "a red balloon")), 32)


def test_prompts_read_together_are_what_each_is_alone(folder):
    prompts = ["a red balloon", "a small boat on calm water at night"]
    for embedding, prompt in zip(reader(folder).encode(prompts), prompts, strict=True):
        assert torch.equal(embedding.embeds, embed(reader(folder), prompt))


def test_vectors_are_kept_for_the_same_prompt_and_weights_only(folder, tmp_path, monkeypatch):
    before = embed(reader(folder, tmp_path), "a boat")
    loads = []
    plain = text_encoder.load_into
    monkeypatch.setattr(text_encoder, "load_into", lambda *args: loads.append(1) or plain(*args))
    assert torch.equal(embed(reader(folder, tmp_path), "a boat"), before)
    assert loads == []
    embed(reader(folder, tmp_path), "a kite")
    embed(text_encoder.open_text_encoder(folder, CPU, torch.bfloat16, tmp_path), "a boat")
    assert loads == [1, 1]


@pytest.mark.parametrize("changed", ["spiece.model", "config.json"])
def test_vectors_of_another_tokenizer_or_configuration_are_not_taken(folder, tmp_path, changed):
    shutil.copytree(folder, tmp_path / "text_encoder")
    embed(reader(tmp_path / "text_encoder", tmp_path / "kept"), "a boat")
    assert reader(folder, tmp_path / "kept").memory_bytes("a boat") == {}
    before = text_encoder.text_digest(tmp_path / "text_encoder")
    other = {
        "spiece.model": published.tokenizer() + b"\0",
        "config.json": json.dumps(published.T5 | {"d_kv": 4}).encode(),
    }
    (tmp_path / "text_encoder" / changed).write_bytes(other[changed])
    assert reader(tmp_path / "text_encoder", tmp_path / "kept").memory_bytes("a boat")
    assert text_encoder.text_digest(tmp_path / "text_encoder") != before  # what training keeps


def test_vectors_that_cannot_be_kept_or_read_back_are_made_again(folder, tmp_path):
    before = embed(reader(folder, tmp_path), "a boat")
    for path in tmp_path.iterdir():
        path.write_bytes(b"broken")
    assert torch.equal(embed(reader(folder, tmp_path), "a boat"), before)
    (tmp_path / "file").write_text("no folder")
    assert torch.equal(embed(reader(folder, tmp_path / "file"), "a boat"), before)


def test_a_tokenizer_that_is_missing_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer"):
        token_ids(tmp_path, "a boat")


def test_a_tokenizer_with_too_many_pieces_is_rejected_before_weights_are_read(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "t5")
    (tmp_path / "t5" / "config.json").write_text(json.dumps(published.T5 | {"vocab_size": 40}))
    monkeypatch.setattr(text_encoder, "load_into", lambda *args: pytest.fail("read weights"))
    with pytest.raises(ModelError, match=r"spiece.model has \d+ tokens, more than T5's vocab_size 40"):
        embed(reader(tmp_path / "t5"), "a boat")


@pytest.mark.parametrize("package", ["sentencepiece", "transformers"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(folder, monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"needs {package}") as excinfo:
        embed(reader(folder), "a boat")
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint == install_command("opensora")
