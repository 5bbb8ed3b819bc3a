"""Untrusted weights and configurations are rejected at once, with one line."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest, locate_tensors, tensor_shapes
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.models.opensora.config import parse_config
from pavdm_cli.models.opensora.text_encoder import check_sizes
from pavdm_cli.models.opensora.vae import infer_vae_config
from pavdm_cli.models.pocket.checkpoint import load_denoiser, load_vae

VAE_CONFIG = {"channels": 8, "frames_per_latent": 2, "widths": [32, 64, 128], "encoder_blocks": 1, "decoder_blocks": 2}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"depth": NaN}', '{"depth": 1, "depth": 2}', "[]", "\xff", '{"a":' * 9999]
)
def test_a_hostile_configuration_is_a_model_error_in_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ModelError) as excinfo:
        read_json(path)
    assert "\n" not in excinfo.value.message


@pytest.mark.skipif(os.name != "posix", reason="pipes have no names elsewhere")
def test_a_configuration_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match="not a regular file"):
        read_json(tmp_path / "config.json")


def header(entries: object, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: object = (1,), offsets: object = (0, 4), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BROKEN = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "a header beyond the file": header({}, length=1 << 20),
    "a huge header": header({}, length=(1 << 63) + 5),
    "no header": header(b""),
    "deep nesting": header(b"[" * 100_000),
    "a list": header([]),
    "bytes": header(b"\xff\xfe{}"),
    "a name twice": header(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "NaN as a size": header(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', bytes(4)),
    "a huge size": header({"a": entry([10**30])}, bytes(4)),
    "sizes that overflow": header({"a": entry([1 << 39, 1 << 39])}, bytes(4)),
    "a negative size": header({"a": entry([-1])}, bytes(4)),
    "text as a size": header({"a": entry("1")}, bytes(4)),
    "an unknown type": header({"a": entry(dtype="F33")}, bytes(4)),
    "a number as a type": header({"a": entry(dtype=3)}, bytes(4)),
    "offsets that overlap": header({"a": entry(), "b": entry(offsets=[2, 6])}, bytes(6)),
    "offsets beyond the file": header({"a": entry(offsets=[0, 400], shape=[100])}, bytes(4)),
    "offsets that go back": header({"a": entry(offsets=[4, 0])}, bytes(4)),
    "a hole": header({"a": entry(offsets=[4, 8])}, bytes(8)),
    "no offsets": header({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "a name of a surrogate": header(b'{"\\ud800": %s}' % json.dumps(entry()).encode(), bytes(4)),
    "a long name": header({"a" * 5000: entry()}, bytes(4)),
    "numbers as metadata": header({"__metadata__": {"a": 1}, "a": entry()}, bytes(4)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_hostile_header_is_a_model_error_in_one_line(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(BROKEN[name])
    for read in (lambda: tensor_shapes(locate_tensors(tmp_path)), lambda: load_vae(tmp_path / "model.safetensors")):
        with pytest.raises(ModelError, match="not a safetensors file") as excinfo:
            read()
        assert "\n" not in excinfo.value.message


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices have no names elsewhere")
@pytest.mark.parametrize("device", ["", "/dev/zero"])
def test_weights_that_are_no_regular_file_are_not_waited_for(tmp_path, device):
    path = tmp_path / "model.safetensors"
    path.symlink_to(device) if device else os.mkfifo(path)
    for read in (lambda: tensor_shapes(locate_tensors(tmp_path)), lambda: load_vae(path), lambda: digest(tmp_path)):
        with pytest.raises(ModelError):
            read()


@pytest.mark.parametrize("files", [["a"], {"a": 1}, {"a": None}, {"a": "../b.safetensors"}, {"a": "\x00"}, None, "a"])
def test_an_index_of_wrong_types_is_a_model_error(tmp_path, files):
    (tmp_path / "model.safetensors").write_bytes(header({"a": entry()}, bytes(4)))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(ModelError):
        locate_tensors(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "spatial_vae.module.encoder.down_blocks.999999999.resnets.0.conv1.weight",
        "spatial_vae.module.encoder.down_blocks.0.resnets.888888888.conv1.weight",
        "temporal_vae.encoder.res_blocks.7777777777.conv",
        f"temporal_vae.encoder.res_blocks.{'7' * 900}.conv",
    ],
)
def test_a_vae_of_a_billion_layers_is_rejected_at_once(name):
    shapes = {
        "spatial_vae.module.encoder.down_blocks.0.resnets.0.conv1.weight": (32, 3, 3, 3),
        "temporal_vae.encoder.res_blocks.0.": (32,),
        "temporal_vae.encoder.conv_in.conv.weight": (32, 4, 3, 3, 3),
    }
    assert infer_vae_config(shapes).spatial.widths == (32,)
    for hostile in (
        {name: (32,)},
        dict.fromkeys(shapes, (31,)),
        dict.fromkeys(shapes, ()),
        dict.fromkeys(shapes, (1 << 40,)),
    ):
        with pytest.raises(ModelError):
            infer_vae_config(shapes | hostile)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_blocks", 10**9),
        ("channels", 10**9),
        ("channels", -1),
        ("channels", True),
        ("widths", [10**6] * 3),
        ("widths", [32, 64]),
        ("widths", 5),
        ("frames_per_latent", "2"),
        ("other", 1),
    ],
)
def test_a_header_of_sizes_that_no_pocket_has_is_rejected_at_once(tmp_path, name, value):
    path = tmp_path / "vae.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"config": json.dumps(VAE_CONFIG | {name: value})})
    with pytest.raises(ModelError, match="does not describe a model of this kind"):
        load_vae(path)


@pytest.mark.parametrize("config", [{}, {"text": 1}, {"text": {}, "stdit": {}}, {"text": None}, {"text": []}])
def test_a_header_without_sizes_is_rejected(tmp_path, config):
    path = tmp_path / "denoiser.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"config": json.dumps(config)})
    with pytest.raises(ModelError, match="does not describe a model of this kind"):
        load_denoiser(path)


@pytest.mark.parametrize("value", [0, -1, 10**6, 10**30, 1.5, True, "28", None, [], {}])
@pytest.mark.parametrize("name", ["depth", "hidden_size", "num_heads", "caption_channels", "mlp_ratio", "patch_size"])
def test_sizes_far_from_the_card_of_open_sora_are_rejected(name, value):
    if (name, value) == ("mlp_ratio", 1.5):
        return  # is a size
    with pytest.raises(ModelError, match="is invalid"):
        parse_config({name: value})


@pytest.mark.parametrize("value", [0, 10**7, 10**30, 2.5, False, "x", None, []])
@pytest.mark.parametrize("name", ["d_model", "d_ff", "num_layers", "num_heads", "d_kv", "vocab_size"])
def test_sizes_far_from_the_card_of_t5_are_rejected(name, value):
    with pytest.raises(ModelError, match="is invalid"):
        check_sizes({name: value})
