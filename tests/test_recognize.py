"""What `--model` accepts: names, typos, hub repositories and folders; errors are one line, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import published
from support.command import pavdm
from support.models import MODELS, OPENSORA, POCKET, find
from support.requests import make_request

from pavdm_cli.errors import ModelError
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import registry
from pavdm_cli.models.opensora.export import export

KNOWN = f"known models: {', '.join(registry.MODELS)}"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The three parts of Open-Sora with their configurations alone."""
    vae = {"architectures": ["VideoAutoencoderPipeline"], "model_type": "VideoAutoencoderPipeline"}
    for part, config in (("transformer", published.published()), ("vae", vae), ("text_encoder", published.T5)):
        write(tmp_path / "model" / part / "config.json", config)
    return tmp_path / "model"


def write(path: Path, config: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))


def refusal(name: str | Path) -> ModelError:
    with pytest.raises(ModelError) as excinfo:
        find(str(name))
    assert "\n" not in excinfo.value.message
    return excinfo.value


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        *((typo, "opensora-v1.2") for typo in ("opensora", "open-sora", "Open-Sora-v1.2", "OPENSORA_V1.1", "opnsora")),
        *((typo, "pocket") for typo in ("Pocket", "pockt", "pocket-2")),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(typo, meant):
    error = refusal(typo)
    assert error.message == f"no model is called {typo!r}"
    assert error.hint == f"did you mean {meant}? {KNOWN}"


@pytest.mark.parametrize("name", ["", "ltx", "zebra", "a\0b", "x" * 5000, "\udcff", "po"])
def test_a_name_like_no_other_is_answered_with_all(name):
    error = refusal(name)
    assert (error.hint, len(error.message) < 150) == (KNOWN, True)


@pytest.mark.parametrize("form", ["{}", "https://huggingface.co/{}", "https://huggingface.co/{}/"])
def test_a_hub_repository_of_a_model_is_answered_with_its_name(form):
    for repository in [part.repo for part in MODELS["opensora-v1.2"].parts]:
        for name in (repository, repository.lower()):
            assert refusal(form.format(name)).message.endswith(" is a part of opensora-v1.2")
            assert refusal(form.format(name)).hint == "use the model's name: opensora-v1.2"


@pytest.mark.parametrize("name", ["foo/bar", "Lightricks/LTX-Video", "hpcai-tech/Open-Sora-v2"])
def test_an_unknown_hub_repository_is_told_from_a_folder_that_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(name).message == f"there is no folder {name}, and no hub repository of that name that pavdm knows"
    assert KNOWN in refusal(name).hint
    for folder in (f"./{name}", f"/nowhere/{name}", f"..\\{name}"):
        assert refusal(folder).message == f"there is no folder {folder}"
        assert "`pavdm models pull opensora-v1.2 --folder" in refusal(folder).hint


def test_a_folder_is_the_model_that_its_configurations_name(layout):
    for names in ({}, {"architectures": None, "model_type": "STDiT3"}, {"architectures": ["STDiT3"]}):
        write(layout / "transformer" / "config.json", names)
        assert (registry.find(str(layout)).published_spec, find(str(layout)).folder) == (OPENSORA, layout)
    shutil.rmtree(layout / "vae")  # what is missing is said by its name, later
    assert registry.find(str(layout)).published_spec == OPENSORA


def test_a_request_recognizes_its_folder_once(layout, monkeypatch):
    folders = []
    monkeypatch.setattr(registry, "recognize", lambda folder, specs: folders.append(folder) or OPENSORA.name)
    request = make_request("a red ball", model=str(layout))
    resolve(request)
    assert request.spec.folder == layout
    assert folders == [layout, layout]  # for the defaults of its own options, and for the request


def test_a_fine_tuned_folder_is_its_model(layout, tmp_path):
    tuned = export({"weight": torch.zeros(1)}, layout, tmp_path / "tuned", {})
    assert registry.find(str(tuned)).published_spec == OPENSORA


def test_a_folder_of_pockets_files_is_pocket_and_makes_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(POCKET.folder, tmp_path / "mine")
    assert find("mine") == replace(POCKET, name="mine", folder=tmp_path / "mine")
    result = pavdm("generate", "a red ball", "--model", "mine", "--frames", "2", "--steps", "6", "-o", "v.mp4")
    assert (result.code, result.out) == (0, "v.mp4\n"), result.err


@pytest.mark.parametrize(
    ("place", "config", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "'StableDiffusionXLPipeline'"),
        ("model_index.json", {}, "none declared"),
        ("transformer/config.json", {"_class_name": "WanTransformer3DModel"}, "'WanTransformer3DModel'"),
        ("transformer/config.json", {"model_type": "STDiT2"}, "'STDiT2'"),
        ("vae/config.json", {"_class_name": "AutoencoderKLWan"}, "'AutoencoderKLWan'"),
        ("text_encoder/config.json", {"architectures": ["UMT5EncoderModel"], "model_type": "umt5"}, "'UMT5Encod"),
        ("vae/config.json", {"_class_name": "Evil\x1b[31m\n"}, "'Evil\\x1b[31m\\n'"),
    ],
)
def test_a_folder_of_another_architecture_is_named_by_what_it_holds(place, config, message, layout):
    write(layout / place, config)
    error = refusal(layout)
    assert "unknown architecture" in error.message
    assert message in error.message
    assert error.hint == KNOWN


@pytest.mark.parametrize("config", [{"_class_name": "FluxTransformer2DModel"}, {"architectures": ["LlamaForCausalLM"]}])
def test_another_model_in_one_folder_is_rejected(config, tmp_path):
    write(tmp_path / "config.json", config)
    assert "unknown architecture" in refusal(tmp_path).message


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_one_part_of_a_model_is_told_from_the_whole(part, layout):
    error = refusal(layout / part)
    assert error.message == f"{layout / part} is only the {part} of a model"
    assert error.hint.startswith("give the folder that holds transformer, vae, text_encoder")


def test_a_folder_without_a_model_is_answered_with_what_it_holds(tmp_path):
    (tmp_path / ".cache").mkdir()
    assert refusal(tmp_path).message == f"{tmp_path} is empty"
    for number in range(5):
        (tmp_path / f"notes {number}.txt").touch()
    assert refusal(tmp_path).message.endswith(
        "contains no model: 'notes 0.txt', 'notes 1.txt', 'notes 2.txt' and 2 more"
    )


@pytest.mark.parametrize("missing", ["vae.safetensors", "denoiser.safetensors"])
def test_a_missing_file_of_pocket_is_named(missing, tmp_path):
    for name in {"vae.safetensors", "denoiser.safetensors"} - {missing}:
        (tmp_path / name).touch()
    error = refusal(tmp_path)
    assert error.message == f"{tmp_path} has no {missing}"
    assert error.hint == "a folder of pocket holds vae.safetensors and denoiser.safetensors"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everything can be read")
def test_a_folder_that_cannot_be_read_is_one_line(layout):
    layout.chmod(0)
    assert refusal(layout).message.endswith("cannot be read: Permission denied")
    layout.chmod(0o700)


@pytest.mark.parametrize("place", ["model_index.json", "transformer/config.json", "vae/config.json"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 10_000,
        "\udcff",
        '{"model_type": NaN}',
        '{"model_type": 7}',
        '{"architectures": "STDiT3"}',
        '{"architectures": [[]]}',
        '{"_class_name": {"a": 1}}',
        '{"model_type": true}',
    ],
    ids=range(13),
)
def test_a_configuration_that_is_none_is_one_line_and_exit_5(place, content, layout):
    (layout / place).write_bytes(content.encode(errors="surrogateescape"))
    result = pavdm("generate", "a cat", "--model", layout)
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith(f"error: {layout}")
    assert len(result.err.splitlines()) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_place_of_a_configuration_is_not_waited_for(layout):
    (layout / "vae" / "config.json").unlink()
    os.mkfifo(layout / "vae" / "config.json")
    assert "not a regular file" in refusal(layout).message


def test_models_are_told_apart_without_torch(layout):
    code = (
        f"import sys; from pavdm_cli.models.registry import find; find({str(layout)!r}); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"
