"""Published weights: loaded to the device in the requested precision; invalid files are one clear error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import published
from torch import nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest, load_into, locate_tensors, tensor_shapes
from pavdm_cli.models.opensora import config
from pavdm_cli.models.opensora.vae import infer_vae_config
from pavdm_cli.models.stdit.transformer import STDiT

CPU = torch.device("cpu")
FIRST, SECOND = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2))


def build() -> nn.Module:
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))


def weights() -> dict[str, torch.Tensor]:
    return published.weights(build, {})


@pytest.fixture(params=[1, 3], ids=["whole", "sharded"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    published.part(tmp_path / "part", weights(), {}, request.param)
    return tmp_path / "part"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_in_the_precision_wanted_and_frozen(folder, dtype):
    model = load_into(build, folder, CPU, dtype)
    for name, value in weights().items():
        assert torch.equal(model.state_dict()[name], value.to(dtype)), name
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_what_is_loaded_lives_on_without_its_files(folder):
    model = load_into(build, folder, CPU, torch.float32)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights().items())


def error(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as excinfo:
        load_into(build, folder, CPU, torch.float32)
    assert excinfo.value.exit_code == 5
    assert "\n" not in excinfo.value.message
    assert str(folder) in excinfo.value.message
    assert excinfo.value.hint
    return excinfo.value


def test_the_first_five_tensors_that_do_not_fit_are_named(tmp_path):
    changed = weights()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        del changed[name]
    changed |= {"2.weight": torch.zeros(3, 4), "9.extra": torch.zeros(1)}
    published.part(tmp_path / "part", changed, {})
    message = error(tmp_path / "part").message
    assert message.endswith(
        "0.bias is missing, 0.weight is missing, 1.bias is missing, 1.weight is missing, "
        "2.weight is [3, 4] instead of [4, 4] and 1 more"
    )


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_a_tensor_of_another_kind_is_named(tmp_path, kind):
    published.part(tmp_path / "part", weights() | {"2.bias": torch.zeros(4, dtype=kind)}, {})
    assert re.search(r"does not fit: 2.bias is \w+, not a float$", error(tmp_path / "part").message)


def test_tensors_that_nobody_needs_are_not_read(tmp_path):
    published.part(tmp_path / "part", weights() | {"decoder.weight": torch.zeros(2)}, {})
    assert "decoder.weight is unknown" in error(tmp_path / "part").message
    load_into(build, tmp_path / "part", CPU, torch.float32, ("decoder.",))


def test_a_shard_that_is_missing_or_cut_short_is_one_clear_error(tmp_path):
    published.part(tmp_path / "part", weights(), {}, shards=3)
    shard = sorted((tmp_path / "part").glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert "is not a safetensors file" in error(tmp_path / "part").message
    shard.unlink()
    assert "no weights at" in error(tmp_path / "part").message


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", 7])
def test_an_index_that_names_files_elsewhere_is_rejected(tmp_path, name):
    published.part(tmp_path / "part", weights(), {}, shards=3)
    (tmp_path / "part" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"0.weight": name}}))
    assert "names no files in its folder" in error(tmp_path / "part").message


def added(folder: Path, file: str, name: str) -> None:
    """One more tensor in a file, which may be a new one."""
    there = load_file(folder / file) if (folder / file).exists() else {}
    save_file(there | {name: torch.zeros(1)}, folder / file)


@pytest.mark.parametrize(
    ("shards", "file", "name", "message"),
    [
        (3, SECOND, "evil.extra", f"evil.extra in {SECOND} is not in the index"),
        (3, SECOND, "0.bias", "both hold 0.bias"),
        (3, "other.safetensors", "evil.extra", "does not list other.safetensors in its folder"),
        (1, "zzz.safetensors", "0.bias", "both hold 0.bias"),
        (1, "zzz.safetensors", "evil.extra", "evil.extra is unknown"),
    ],
)
def test_a_tensor_or_a_file_too_many_is_never_passed_over(tmp_path, shards, file, name, message):
    published.part(tmp_path / "part", weights(), {}, shards)
    added(tmp_path / "part", file, name)
    assert message in error(tmp_path / "part").message


@pytest.mark.parametrize(("name", "file"), [("0.bias", SECOND), ("evil.extra", FIRST)])
def test_an_index_that_places_tensors_where_they_are_not_is_rejected(tmp_path, name, file):
    published.part(tmp_path / "part", weights(), {}, shards=3)
    index = tmp_path / "part" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"] | {name: file}}))
    assert f"{name} is not in {file}" in error(tmp_path / "part").message


def test_tensors_that_nobody_needs_may_be_in_a_shard_and_not_in_the_index(tmp_path):
    published.part(tmp_path / "part", weights(), {}, shards=3)
    added(tmp_path / "part", SECOND, "decoder.weight")
    load_into(build, tmp_path / "part", CPU, torch.float32, ("decoder.",))


@pytest.mark.parametrize("suffix", ["bin", "pt"])
def test_pickled_weights_are_never_read_but_named(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").write_bytes(b"\x80\x04.")
    raised_error = error(tmp_path)
    assert "can run code" in raised_error.message
    assert f"pavdm models convert {tmp_path}" in raised_error.hint


def test_a_digest_follows_names_and_contents(folder):
    before = digest(folder)
    assert before == digest(folder)
    path = sorted(folder.glob("*.safetensors"))[0]
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    assert digest(folder) != before


PEAK = """
    import re, sys
    from pathlib import Path
    import torch
    from torch import nn
    from pavdm_cli.hub.checkpoint import load_into

    build = lambda: nn.Sequential(*(nn.Linear(1536, 1536, bias=False) for _ in range(12)))
    peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    before = peak()
    model = load_into(build, Path(sys.argv[1]), torch.device("cpu"), torch.bfloat16)
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_loading_takes_the_model_and_a_shard_and_no_second_copy(tmp_path):
    each = 1536 * 1536
    published.part(tmp_path / "part", {f"{i}.weight": torch.zeros(1536, 1536) for i in range(12)}, {}, shards=4)
    command = [sys.executable, "-c", "\n".join(line[4:] for line in PEAK.splitlines()), str(tmp_path / "part")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    model, shard = 12 * each * 2, 3 * each * 4
    code = 2_000_000  # pages of torch's own that are read for the first time
    assert model < int(result.stdout) < model + 1.2 * shard + code


def test_the_configuration_gives_the_sizes_and_nothing_of_how_it_was_run():
    assert config.parse_config(published.published()) == published.STDIT
    assert config.parse_config({}) == config.XL2
    assert config.parse_config({"pred_sigma": False}).out_channels == 4
    larger = config.parse_config({"hidden_size": 1872, "num_heads": 26})
    with torch.device("meta"):
        count = sum(p.numel() for p in STDiT(larger).parameters())
    assert 3.1e9 < count < 3.3e9


@pytest.mark.parametrize(
    "changes",
    [
        *({"qk_norm": False}, {"skip_y_embedder": True}, {"hidden_size": 33}, {"num_heads": 0}, {"depth": "many"}),
        *({"patch_size": 7}, {"patch_size": []}, {"patch_size": [2, 2, 2]}, {"model_type": "STDiT2"}),
        *({"num_heads": 4.0}, {"num_heads": True}, {"depth": 2.5}, {"depth": 10**8}, {"hidden_size": 1e30}),
        *({"model_max_length": float("inf")}, {"model_max_length": 299}, {"patch_size": [1, 2, 2.5]}),
        *({"in_channels": 8}, {"mlp_ratio": 1e300}, {"mlp_ratio": 1e-9}, {"mlp_ratio": "4"}, {"depth": None}),
    ],
)
def test_a_configuration_of_another_network_is_one_clear_error(changes):
    with pytest.raises(ModelError) as excinfo:
        config.parse_config(published.published() | changes)
    assert "\n" not in excinfo.value.message
    assert excinfo.value.exit_code == 5


def test_the_vae_is_known_by_its_tensors(tmp_path):
    published.write(tmp_path)
    assert infer_vae_config(tensor_shapes(locate_tensors(tmp_path / "vae"))) == published.VAE
    with pytest.raises(ModelError, match="not the weights of Open-Sora's VAE"):
        infer_vae_config(tensor_shapes(locate_tensors(tmp_path / "text_encoder")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_not_finite_is_rejected_by_name(folder, dtype):
    for path in folder.glob("*.safetensors"):
        stored = load_file(path)
        stored = {name: value.fill_(1e38) if name == "2.weight" else value for name, value in stored.items()}
        save_file({name: value * 10 if name == "2.weight" else value for name, value in stored.items()}, path)
    with pytest.raises(ModelError, match=r"2\.weight in .*\.safetensors holds values that are not finite"):
        load_into(build, folder, CPU, dtype)


@pytest.mark.integration
def test_loading_pocket_imports_no_compiler():
    code = """
import sys
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, SPEC, VAE_FILE
vae, denoiser = SPEC.folder / VAE_FILE, SPEC.folder / DENOISER_FILE
before = {*sys.modules}
checkpoint.load_vae(vae), checkpoint.load_stdit(denoiser), checkpoint.load_text(denoiser)
print(len([name for name in {*sys.modules} - before if name.startswith("torch.")]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(result.stdout) < 10, result.stderr  # some operations on the meta device import hundreds, for seconds
