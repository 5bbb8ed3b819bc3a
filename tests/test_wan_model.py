"""Tiny checkpoints of the Wan family in both layouts: loaded strictly, and through the commands."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.command import pavdm
from support.decoding import decoded_frames
from support.models import find, load
from support.wan import golden, tiny_transformer, write_checkpoint

from pavdm_cli.attention import TORCH
from pavdm_cli.errors import ModelError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import DenoiserConfig, Placement, TextEmbedding
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.models.wan.load import read_headers
from pavdm_cli.models.wan.transformer import WanTransformer
from pavdm_cli.models.wan.variants import VARIANTS

CPU = torch.device("cpu")
SHORT = ("--size", "128x128", "--window", "4", "--chunk", "2", "--steps", "4", "--seed", "3", "--guidance", "2")


@pytest.fixture(scope="module", params=["diffusers", "original"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(request.param) / "tiny", request.param)


def test_both_layouts_are_recognized_and_loaded(folder: Path) -> None:
    model = registry.find(str(folder))
    assert model.published_spec.name == "skyreels-v2-df-1.3b"
    loaded = load(replace(find(str(folder)), size=(128, 128)))
    weights = loaded.transformer.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in golden("dit_weights_original").items())
    assert not any(weight.requires_grad for weight in loaded.transformer.parameters())


def test_bfloat16_keeps_the_modulation_and_the_head_in_float32(folder: Path) -> None:
    loaded = registry.find(str(folder)).load(Placement(CPU, "bf16"), "weights")
    dtypes = {name: weight.dtype for name, weight in loaded.transformer.named_parameters()}
    assert dtypes["time_projection.1.weight"] == dtypes["blocks.0.modulation"] == torch.float32
    assert dtypes["blocks.0.self_attn.q.weight"] == dtypes["patch_embedding.weight"] == torch.bfloat16
    assert {weight.dtype for weight in loaded.vae.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["missing", "unknown", "size", "integer"])
def test_a_tensor_that_does_not_belong_is_rejected_by_its_name(kind: str, tmp_path: Path) -> None:
    tiny = write_checkpoint(tmp_path / "tiny", "original")
    weights = load_file(tiny / "model.safetensors")
    changed = {
        "missing": {name: w for name, w in weights.items() if name != "blocks.1.norm3.bias"},
        "unknown": weights | {"img_emb.proj.weight": torch.zeros(2)},
        "size": weights | {"blocks.1.norm3.bias": torch.zeros(41)},
        "integer": weights | {"blocks.1.norm3.bias": torch.zeros(40, dtype=torch.int32)},
    }
    save_file(changed[kind], tiny / "model.safetensors")
    with pytest.raises(ModelError, match="img_emb" if kind == "unknown" else r"blocks\.1\.norm3\.bias"):
        load(find(str(tiny)))


DAMAGED = {
    "diffusers": ("transformer/config.json", "vae/model.safetensors", "text_encoder/model.safetensors"),
    "original": ("config.json", "Wan2.1_VAE.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors"),
}


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("damage", ["missing", "half"])
@pytest.mark.parametrize(("layout", "file"), [(layout, file) for layout, files in DAMAGED.items() for file in files])
def test_a_damaged_part_is_one_line_and_exit_5(layout: str, file: str, damage: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny", layout) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if damage == "missing":
        path.unlink()
    result = pavdm("generate", "a boat", "--model", tmp_path / "tiny", *SHORT, "--frames", 1)
    assert result.code == 5, result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "bug" not in result.err


def test_pickled_parts_are_rejected_with_the_command_that_converts_them(tmp_path: Path) -> None:
    tiny = write_checkpoint(tmp_path / "tiny", "original")
    vae = tiny / "Wan2.1_VAE.safetensors"
    torch.save(load_file(vae), vae.with_suffix(".pth"))
    vae.unlink()
    with pytest.raises(ModelError, match="pickled") as excinfo:
        load(find(str(tiny)))
    assert "pavdm models convert" in (excinfo.value.hint or "")
    assert pavdm("models", "convert", str(tiny)).code == 0
    assert load(find(str(tiny))).vae


def test_a_checkpoint_is_the_variant_that_its_configuration_says(tmp_path: Path) -> None:
    for name, variant in VARIANTS.items():
        (tmp_path / name / "transformer").mkdir(parents=True)
        sizes = variant.spec.distinguishing_config["transformer"]
        kind = variant.spec.architectures["transformer"][0]
        (tmp_path / name / "transformer" / "config.json").write_text(json.dumps({"_class_name": kind, **sizes}))
        expected = "skyreels-v2-df-14b-540p" if name == "skyreels-v2-df-14b-720p" else name  # sizes are all the same
        assert registry.find(str(tmp_path / name)).published_spec.name == expected


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("wan2.1-t2v-1.3b", 1_418_996_800, 825),
        ("skyreels-v2-df-1.3b", 1_435_525_696, 830),
        ("skyreels-v2-df-14b-720p", 14_288_491_584, 1095),
        ("wan2.2-ti2v-5b", 4_999_787_712, 825),
    ],
)
def test_the_transformers_have_the_published_sizes(name: str, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        weights = WanTransformer(VARIANTS[name].transformer).state_dict()
    assert (sum(weight.numel() for weight in weights.values()), len(weights)) == (parameters, tensors)


def test_a_cached_context_equals_a_causal_one_that_is_computed_at_every_step(folder: Path) -> None:
    model, levels = registry.find(str(folder)).load(Placement(CPU), "weights"), wan_levels(4, 8.0)
    text = [TextEmbedding(torch.randn(3, 32)), TextEmbedding(torch.randn(5, 32))]
    z, rows = torch.randn(2, 5, 16, 4, 4), torch.tensor([3, 3, 4], dtype=torch.int32)
    outs = []
    for reuse, cached in ((True, True), (False, True), (False, False)):
        config = DenoiserConfig(2, (32, 32), 24, reuse, True, TORCH, cache_text=cached, cache_modulation=cached)
        denoiser = model.bind(levels, config)(model.text_kv(text, config))
        outs.append(denoiser(z[:, 2:], rows, denoiser.prefill(z[:, :2], 0)))
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-5)
    assert torch.equal(outs[1], outs[2])


def test_training_sees_the_velocity_that_sampling_does(folder: Path) -> None:
    model, levels = registry.find(str(folder)).load(Placement(CPU), "weights"), wan_levels(4, 8.0)
    text, z = [TextEmbedding(torch.randn(3, 32))], torch.randn(1, 4, 16, 4, 4)
    config = DenoiserConfig(0, (32, 32), 24, False, False, TORCH)
    rows = torch.tensor([1, 2, 4, 4], dtype=torch.int32)
    sampled = model.bind(levels, config)(model.text_kv(text, config))(z, rows, None)
    model.unfreeze()
    trained = model.velocity(z, levels.timesteps[rows.long()][None], text, config)
    torch.testing.assert_close(trained, sampled, rtol=0, atol=1e-5)
    trained.square().mean().backward()
    gradients = {name: weight.grad for name, weight in model.transformer.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


@pytest.mark.integration
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("layout", ["diffusers", pytest.param("original", marks=pytest.mark.integration)])
def test_a_video_is_made_again_and_continued(layout: str, tmp_path: Path) -> None:
    folder, video = write_checkpoint(tmp_path / "tiny", layout), tmp_path / "v.mp4"
    words = ("--model", folder, *SHORT, "--frames")
    result = pavdm("generate", "a red balloon", *words, 10, "-o", video)
    assert result.code == 0, result.err
    assert decoded_frames(video).shape == (10, 128, 128, 3)
    again, longer = tmp_path / "again.mp4", tmp_path / "longer.mp4"
    command = shlex.split(pavdm("info", video).out.splitlines()[-1])[1:]
    assert pavdm(*command, "-o", again).code == 0
    assert np.array_equal(decoded_frames(again), decoded_frames(video))
    result = pavdm("extend", video, *words, 7, "-o", longer)
    assert result.code == 0, result.err
    assert len(decoded_frames(longer)) == 17


@pytest.mark.usefixtures("own_cache")
def test_without_a_prompt_an_empty_one_is_encoded(tmp_path: Path) -> None:
    runner = load(find(str(write_checkpoint(tmp_path / "tiny"))))
    (nothing,) = runner.embed("", cfg=False)
    assert nothing.embeds.shape == (1, 32)
    assert nothing.embeds.any()
    prompt, away = runner.embed("a boat", cfg=True, negative="")
    assert torch.equal(away.embeds, nothing.embeds)
    assert len(prompt.embeds) > 1


@pytest.mark.usefixtures("own_cache")
def test_a_video_begins_with_the_image(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny")
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((16, 16)).resize((128, 128)).save(tmp_path / "i.png")
    out = tmp_path / "v.mp4"
    result = pavdm(
        "generate", "a boat", "--model", str(folder), *SHORT, "--frames", "5", "--image", str(tmp_path / "i.png"),
        "-o", str(out), "--crf", "0",
    )  # fmt: skip
    assert result.code == 0, result.err
    first = decoded_frames(out)[0].astype(int)
    image = np.asarray(Image.open(tmp_path / "i.png").convert("RGB")).astype(int)
    assert np.abs(first - image).mean() < 6


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "negative": {"options": {"negative_prompt": "a boat"}},
    "shift": {"options": {"shift": 3.0}},
    "full": {"ramp_up": "full"},
    "context": {"context": 1},
    "noise": {"context": 1, "options": {"context_noise": 20.0}},
    "windows": {"method": "windows", "context": 1, "window": 6},
    "staggered": {"method": "windows", "context": 1, "window": 6, "stride": 2},
    "euler": {"solver": "euler"},
    "rn": {"method": "rn", "context": 1},
    "fifo": {"method": "fifo"},
}


@pytest.mark.integration
@pytest.mark.usefixtures("own_cache")
def test_every_option_of_sampling_changes_the_latents(tmp_path: Path) -> None:
    tiny = write_checkpoint(tmp_path / "tiny")
    sizes = {"frames": 13, "size": (128, 128), "steps": 4, "window": 4, "chunk": 2}
    common = Request("a kite", model=str(tiny), guidance=2.0, **sizes)
    requests = {name: replace(common, **values) for name, values in OPTIONS.items()}
    requests["fps"] = replace(requests["plain"], fps=16)
    requests["cfg"] = replace(requests["plain"], execution=ExecutionConfig(cfg_batching="sequential"))
    latents_by_option = {name: latents_of(request) for name, request in requests.items()}
    torch.testing.assert_close(latents_by_option.pop("cfg"), latents_by_option["plain"], rtol=0, atol=1e-4)
    pairs = [
        pair
        for pair in combinations(latents_by_option, 2)
        if torch.equal(latents_by_option[pair[0]], latents_by_option[pair[1]])
    ]
    assert pairs == [("windows", "rn")]  # of windows that are as long without their context
    assert all(latents.isfinite().all() for latents in latents_by_option.values())


def latents_of(request: Request) -> torch.Tensor:
    job = resolve(request)
    return torch.cat(list(pipeline.sample_latents(job, pipeline.open_model(job))), dim=1)[:, :4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fps", "20"), "supports 16 or 24 fps"),
        (("--size", "120x128"), "in multiples of 16"),
        (("--shift", "0"), "--shift must be"),
        (("--context-noise", "60"), "--context-noise must be"),
        (("--stride", "2"), "--stride is for --method windows"),
        (("--motion-score", "5"), "is not an option of"),
    ],
)
def test_what_the_model_cannot_do_is_rejected_at_once(words: tuple[str, ...], message: str) -> None:
    result = pavdm("generate", "a kite", "--model", "skyreels-v2-df-1.3b", *words)
    assert result.code == 2
    assert message in result.err


def test_sizes_of_a_checkpoint_come_from_its_tensors(folder: Path) -> None:
    sizes, vae, _, _ = read_headers(find(str(folder)))
    assert sizes == tiny_transformer().config
    assert (vae.width, vae.decoder_width, vae.channels, vae.shortcuts) == (4, 4, 16, False)
