"""Weights as they ship: one file, or shards and an index that load as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.command import pavdm
from support.tiny import tiny_pocket, tiny_vae

from pavdm_cli.errors import ModelError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.models.pocket.shards import MAX_HEADER_BYTES
from pavdm_cli.models.registry import find
from pavdm_cli.pocket_world.vocabulary import VOCABULARY
from pavdm_cli.training.pocket import fingerprint
from pavdm_cli.training.pocket.export import MAX_FILE_BYTES, export

SMALL = MAX_HEADER_BYTES + 40_000  # the tiny denoiser takes four of these
INDEX = f"{DENOISER_FILE}.index.json"


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path]:
    """The files of a tiny VAE and of a tiny denoiser."""
    (folder := tmp_path / "trained").mkdir()
    vae = tiny_vae()
    checkpoint.save(vae, folder / "vae.safetensors", {"psnr": 38.5})
    about = {"method": "pa", "latents": fingerprint.latents(vae)}
    checkpoint.save(tiny_pocket(), folder / "network.safetensors", about)
    return folder / "vae.safetensors", folder / "network.safetensors"


def assert_equal_weights(one: Path, other: Path) -> None:
    left, right = (checkpoint.load_denoiser(path) for path in (one, other))
    assert left.config == right.config
    assert all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())
    assert checkpoint.training_metadata(one) == checkpoint.training_metadata(other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_small_weights_are_one_file_each(trained, tmp_path):
    code, out, err = pavdm(
        "train", "export", "--vae", trained[0], "--denoiser", trained[1], "--output-dir", tmp_path / "a"
    )
    assert (code, out) == (0, f"{tmp_path / 'a'}\n"), err
    assert names(tmp_path / "a") == [DENOISER_FILE, VAE_FILE]
    assert_equal_weights(tmp_path / "a" / DENOISER_FILE, trained[1])
    left, right = load_file(tmp_path / "a" / VAE_FILE), load_file(trained[0])
    assert all(torch.equal(value, left[name]) for name, value in right.items())
    assert checkpoint.training_metadata(tmp_path / "a" / VAE_FILE) == {"psnr": 38.5}


def test_large_weights_are_shards_with_an_index(trained, tmp_path):
    folder = tmp_path / "a"
    export(*trained, folder, SMALL)
    shards = [name for name in names(folder) if name.startswith("denoiser-")]
    assert {DENOISER_FILE, INDEX} & {*names(folder)} == {INDEX}
    assert shards == [f"denoiser-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    assert len(shards) > 2
    index = json.loads((folder / INDEX).read_text())
    stored = {name: load_file(folder / name) for name in shards}
    assert index["weight_map"] == {name: shard for shard in shards for name in stored[shard]}
    total = sum(value.nbytes for tensors in stored.values() for value in tensors.values())
    assert index["metadata"]["total_size"] == total
    assert all((folder / name).stat().st_size <= SMALL for name in shards)
    with safe_open(folder / shards[0], "pt") as file:
        assert json.loads(file.metadata()["words"]) == [*VOCABULARY]
    assert_equal_weights(folder / DENOISER_FILE, trained[1])


def test_every_part_of_a_sharded_denoiser_loads(trained, tmp_path):
    export(*trained, tmp_path / "a", SMALL)
    model = find(str(tmp_path / "a"))
    assert model.published_spec.name == "pocket"
    path, whole = tmp_path / "a" / DENOISER_FILE, checkpoint.load_denoiser(trained[1])
    for part, expected in ((checkpoint.load_text(path), whole.text), (checkpoint.load_stdit(path), whole.stdit)):
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in part.state_dict().items())
    assert model.part_digest("transformer") != checkpoint.digest(trained[1])


def test_the_digest_covers_every_shard(trained, tmp_path):
    export(*trained, tmp_path / "a", SMALL)
    path = tmp_path / "a" / DENOISER_FILE
    digests = {checkpoint.digest(path)}
    shards = sorted((tmp_path / "a").glob("denoiser-*"))
    for shard in shards:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        digests.add(checkpoint.digest(path))
    assert len(digests) == len(shards) + 1


@pytest.mark.parametrize("sizes", [(SMALL, MAX_FILE_BYTES), (MAX_FILE_BYTES, SMALL), (SMALL, SMALL + 40_000)])
def test_an_export_replaces_an_earlier_one(sizes, trained, tmp_path):
    for size in sizes:
        export(*trained, tmp_path / "a", size)
    export(*trained, tmp_path / "b", sizes[1])
    assert names(tmp_path / "a") == names(tmp_path / "b")
    assert_equal_weights(tmp_path / "a" / DENOISER_FILE, trained[1])


def test_a_denoiser_of_another_vae_is_not_exported(trained, tmp_path):
    other = tiny_vae()
    with torch.no_grad():
        next(other.encoder.parameters()).mul_(1.5)
    checkpoint.save(other, trained[0], {})
    with pytest.raises(ModelError, match="was trained on latents of a VAE other than"):
        export(*trained, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("damage", ["missing", "cut short", "not in the index", "no index"])
def test_damaged_shards_are_one_clear_error(damage, trained, tmp_path):
    export(*trained, tmp_path / "a", SMALL)
    shard, index = sorted((tmp_path / "a").glob("denoiser-*"))[1], tmp_path / "a" / INDEX
    if damage == "cut short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "not in the index":
        content = json.loads(index.read_text())
        content["weight_map"].popitem()
        index.write_text(json.dumps(content))
    else:
        (shard if damage == "missing" else index).unlink()
    with pytest.raises(ModelError) as caught:
        checkpoint.load_denoiser(tmp_path / "a" / DENOISER_FILE)
    assert caught.value.hint
    assert "\n" not in caught.value.message
