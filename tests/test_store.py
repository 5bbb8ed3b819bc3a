"""Weight files: exact in 16 bits, and one clear error for every invalid file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.tiny import POCKET, VAE_CONFIG, randomized, tiny_pocket, tiny_vae
from torch import Tensor

from pavdm_cli.errors import ModelError, OutputError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.vocabulary import LENGTH, VOCABULARY

PARTS: dict[str, tuple[Callable[[], Any], Callable[[Path], Any]]] = {
    "vae": (tiny_vae, checkpoint.load_vae),
    "denoiser": (tiny_pocket, checkpoint.load_denoiser),
}
every_part = pytest.mark.parametrize("part", PARTS)


def written(part: str, folder: Path) -> Path:
    return checkpoint.save(PARTS[part][0](), folder / f"{part}.safetensors", {"steps": 3})


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    """The file with its tensors and header changed."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    change(tensors, header)
    save_file(tensors, path, header)
    return path


def error(part: str, path: Path) -> ModelError:
    """The one error of a file; what else is raised is a mistake of ours."""
    with pytest.raises(ModelError) as excinfo:
        PARTS[part][1](path)
    assert excinfo.value.exit_code == 5
    assert "\n" not in excinfo.value.message
    assert str(path) in excinfo.value.message
    assert excinfo.value.hint
    return excinfo.value


@every_part
def test_a_model_comes_back_rounded_to_16_bits(part, tmp_path):
    make, load = PARTS[part]
    model, path = make(), written(part, tmp_path)
    back = load(path)
    assert back.config == model.config
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        rounded = value.half().float() if value.is_floating_point() else value
        assert torch.equal(back.state_dict()[name], rounded), name
        assert back.state_dict()[name].dtype == value.dtype, name
    stored = load_file(path).values()
    assert {value.dtype for value in stored if value.is_floating_point()} == {torch.float16}
    assert list(tmp_path.iterdir()) == [path]


@every_part
def test_what_is_loaded_is_frozen_and_ready_and_costs_no_random_number(part, tmp_path):
    path, state = written(part, tmp_path), torch.get_rng_state()
    model = PARTS[part][1](path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(p.is_meta for p in (*model.parameters(), *model.buffers()))


@every_part
def test_what_is_loaded_lives_on_without_its_file(part, tmp_path):
    path = written(part, tmp_path)
    model = PARTS[part][1](path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_header_says_how_it_was_made(tmp_path):
    path = written("vae", tmp_path)
    assert checkpoint.training_metadata(path) == {"steps": 3}
    rewritten(path, lambda tensors, header: header.pop("about") and None)
    with pytest.raises(ModelError, match="has no 'about' in its header"):
        checkpoint.training_metadata(path)


def test_the_digest_is_that_of_the_bytes_in_order(tmp_path):
    first, second = written("vae", tmp_path), written("denoiser", tmp_path)
    assert len(checkpoint.digest(first)) == 16
    assert checkpoint.digest(first, second) == checkpoint.digest(first, second) != checkpoint.digest(second, first)


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no weights here\n" * 9),
    "cut short": short,
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "of endless header": lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
    "a zip archive": lambda path: torch.save({}, path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@every_part
@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_none_is_one_clear_error(kind, part, tmp_path):
    path = written(part, tmp_path)
    BROKEN[kind](path)
    message = error(part, path).message
    assert ("no weights at" if kind == "missing" else "is not a safetensors file") in message


@every_part
def test_tensors_that_are_missing_or_too_many_or_misshapen_are_named(part, tmp_path):
    def change(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        missing, misshapen = sorted(tensors)[:2]
        del tensors[missing]
        tensors[misshapen] = tensors[misshapen][None].clone()
        tensors["zzz.extra"] = torch.zeros(1)
        wrong.extend([missing, misshapen, "zzz.extra"])

    wrong: list[str] = []
    path = rewritten(written(part, tmp_path), change)
    assert error(part, path).message.endswith(": " + ", ".join(wrong))


def test_of_many_wrong_tensors_the_first_five_are_named(tmp_path):
    def change(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        wrong.extend(sorted(tensors)[:9])
        for name in wrong:
            del tensors[name]

    wrong: list[str] = []
    path = rewritten(written("denoiser", tmp_path), change)
    assert error("denoiser", path).message.endswith(": " + ", ".join(wrong[:5]) + " and 4 more")


def test_a_file_without_a_configuration_is_one_clear_error(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    for part in PARTS:
        assert "has no 'config' in its header" in error(part, path).message


def test_the_file_of_another_part_is_one_clear_error(tmp_path):
    vae, denoiser = written("vae", tmp_path), written("denoiser", tmp_path)
    assert "does not describe a model of this kind" in error("vae", denoiser).message
    assert "does not describe a model of this kind" in error("denoiser", vae).message


def test_weights_of_another_size_are_one_clear_error(tmp_path):
    path = written("vae", tmp_path)
    rewritten(path, lambda tensors, header: header.update(config=header["config"].replace("16]", "24]")))
    assert "does not fit its own configuration" in error("vae", path).message


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("part", PARTS)
def test_weights_of_other_types_than_floats_are_rejected(part, dtype, tmp_path):
    path = written(part, tmp_path)
    name = next(name for name, value in load_file(path).items() if value.is_floating_point())
    rewritten(path, lambda tensors, header: tensors.update({name: tensors[name].to(dtype)}))
    kind = str(dtype).removeprefix("torch.")
    assert error(part, path).message.endswith(f"does not fit its own configuration: {name} ({kind})")


def other_words(change: Callable[[list[str]], list[str]]) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    """The word list changed, and as many rows of the embedding."""

    def changed(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        config, words = json.loads(header["config"]), change(json.loads(header["words"]))
        config["text"]["words"] = len(words) + 1
        tensors["text.words.weight"] = torch.zeros(len(words) + 1, config["text"]["width"])
        header |= {"config": json.dumps(config), "words": json.dumps(words)}

    return changed


def test_weights_for_another_vocabulary_are_one_clear_error(tmp_path):
    known = len(VOCABULARY)
    path = rewritten(written("denoiser", tmp_path), other_words(lambda words: words[7:]))
    message = f"knows {known - 7} words, but this version knows {known}; they differ in "
    assert message + ", ".join(sorted(VOCABULARY)[:5]) in error("denoiser", path).message
    rewritten(path, other_words(lambda words: ["zebra", *words[2:]]))
    assert "they differ in" in error("denoiser", path).message
    rewritten(path, other_words(lambda words: [*VOCABULARY][::-1]))
    assert "they differ in their order" in error("denoiser", path).message
    assert "--init" in error("denoiser", path).hint
    with pytest.raises(ModelError, match="they differ in their order"):
        checkpoint.load_text(path)


def test_weights_that_read_shorter_prompts_are_one_clear_error(tmp_path):
    def change(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        header["config"] = header["config"].replace(f'"text_length": {LENGTH}', f'"text_length": {LENGTH - 3}')
        for name in ("text.places", "stdit.y_embedder.y_embedding"):
            tensors[name] = tensors[name][:-3].clone()

    path = rewritten(written("denoiser", tmp_path), change)
    assert f"reads {LENGTH - 3} prompt words, but this version reads {LENGTH}" in error("denoiser", path).message


@pytest.mark.parametrize("words", ["", "[", "7", "[]", '["a"]', json.dumps([1] * len(VOCABULARY))])
def test_a_word_list_that_makes_no_sense_is_one_clear_error(words, tmp_path):
    path = rewritten(written("denoiser", tmp_path), lambda tensors, header: header.update(words=words))
    assert f"does not list the {len(VOCABULARY)} words that it knows" in error("denoiser", path).message


def test_weights_without_a_word_list_know_those_of_the_first_edition(tmp_path):
    def change(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        other_words(lambda words: checkpoint.FIRST_EDITION.split())(tensors, header)
        del header["words"]

    path = rewritten(written("denoiser", tmp_path), change)
    _, words = checkpoint.load_denoiser_with_words(path)
    assert words == sorted(words) == checkpoint.FIRST_EDITION.split()
    assert (words[0], words[-1], len(words)) == ("a", "yellow", 85)


ODD = ["", "null", "[]", "7", "{", '{"widths": 3}', '{"widths": [-8, 8, 8]}', '{"widths": ["a"]}', "é" * 9]
ODD_SIZES = [("hidden", 33), ("hidden", -4), ("heads", 0), ("depth", "many"), ("patch", [2, 2, 2])]


@pytest.mark.parametrize("config", ODD)
def test_a_configuration_that_makes_no_sense_is_one_clear_error(config, tmp_path):
    path = written("vae", tmp_path)
    error("vae", rewritten(path, lambda tensors, header: header.update(config=config)))


@pytest.mark.parametrize(("name", "value"), ODD_SIZES)
def test_a_size_that_makes_no_sense_is_one_clear_error(name, value, tmp_path):
    def change(tensors: dict[str, Tensor], header: dict[str, str]) -> None:
        config = json.loads(header["config"])
        config["stdit"][name] = value
        header["config"] = json.dumps(config)

    error("denoiser", rewritten(written("denoiser", tmp_path), change))


def test_a_half_written_file_never_replaces_a_good_one(tmp_path, monkeypatch):
    path = written("vae", tmp_path)
    before = path.read_bytes()

    def full(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
        path.write_bytes(before[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*vae\.safetensors: .*No space left") as excinfo:
        checkpoint.save(randomized(PocketVAE(VAE_CONFIG), seed=9), path, {})
    assert excinfo.value.exit_code == 4
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_put_in_place_in_one_move_or_not_at_all(tmp_path, monkeypatch):
    path = written("vae", tmp_path)
    before = path.read_bytes()

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(OutputError, match="Permission denied"):
        checkpoint.save(randomized(PocketVAE(VAE_CONFIG), seed=9), path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_nothing_half(tmp_path, monkeypatch):
    def interrupted(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written("denoiser", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        checkpoint.save(randomized(Pocket(POCKET)), tmp_path / "nowhere" / "denoiser.safetensors", {})
