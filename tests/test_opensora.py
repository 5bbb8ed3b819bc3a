"""Open-Sora through the command line, on a tiny checkpoint in the published layout."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import published
from support.command import pavdm, pavdm_process
from support.decoding import decoded_frames
from support.requests import make_request
from test_stdit_golden import GOLDEN, SMALL, run

from pavdm_cli.errors import DeviceError, ModelError, UsageError
from pavdm_cli.generation import memory_plan, pipeline
from pavdm_cli.generation.checks import check_sampling
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.hub import weight_memory
from pavdm_cli.models.opensora import loaded as opensora_loaded
from pavdm_cli.models.opensora import text_encoder
from pavdm_cli.models.registry import get
from pavdm_cli.models.stdit.denoiser import compute_modulation
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.runtime import optional_imports
from pavdm_cli.runtime.install_hints import install_command

pytestmark = pytest.mark.usefixtures("own_cache")

PROMPT = "a red balloon drifts over green hills"
# The rows of the memory table: with the seed, its header and the result all that a video prints on stderr.
MEMORY = """text encoder, weights|text encoder, activations|transformer|text KV and modulation|activations of a step|VAE
activations of the VAE|libraries (estimate)|total on cpu|free on cpu""".replace("\n", "|").split("|")
QUICK = ("--size", "72x64", "--steps", "6", "--seed", "5", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write(tmp_path_factory.mktemp("published") / "tiny", shards=2)


@pytest.mark.integration
def test_a_folder_of_weights_makes_a_video_and_continues_with_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("generate", PROMPT, "--model", folder, "--frames", "20", "--json", "--motion-score", "4", *QUICK)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    code, out, err = pavdm_process(*words, "-o", "v.mp4", folder=tmp_path, env=env)
    assert code == 0, err
    assert decoded_frames(tmp_path / "v.mp4").shape == (20, 64, 72, 3)
    lines = [line for line in err.splitlines() if not line.startswith("v.mp4: ")]  # progress, if it is slow
    seed, table, *rows, result = lines
    assert (seed, table.split()) == ("seed 5", ["memory", "encode", "text", "encode", "frames", "denoise", "decode"])
    assert [re.split(r" {2,}", row)[0] for row in rows] == MEMORY, err
    assert re.fullmatch(r"20 frames in [\d.]+ s, [\d.]+ frames/s", result)
    metadata = json.loads(out)["metadata"]
    names = ("fps", "size", "aesthetic_score", "motion_score")
    assert [metadata[name] for name in names] == [24, "72x64", 6.5, 4]
    command = pavdm("info", "v.mp4").out.strip().splitlines()[-1]
    words = set(re.findall(r"--\S+ \S+", command))
    assert {"--size 72x64", "--aesthetic-score 6.5", "--motion-score 4.0"} <= words
    assert f"--cfg-batching {metadata['cfg_batching']}" in command
    longer = pavdm("extend", "v.mp4", "--model", folder, "--frames", "3", "--size", "72x64", "-o", "w.mp4",
                   "--steps", "6", "--threads", "1")  # fmt: skip
    assert longer.code == 0, longer.err
    assert len(decoded_frames(tmp_path / "w.mp4")) == 23


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "opensora-v1.2"), 5, "pavdm models pull"),
        (("--model", "./nowhere"), 5, "there is no folder ./nowhere"),
        (("--model", "./nowhere", "--plan"), 5, "--folder ./nowhere` downloads weights there"),
        (("--model", "opensora-v1.2", "--size", "100x60"), 2, "multiples of 8"),
        (("--model", "opensora-v1.2", "--camera-motion", "pan\udcff"), 2, "--camera-motion is not UTF-8"),
    ],
)
def test_a_mistake_is_one_clear_line_and_its_own_code(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = pavdm("generate", PROMPT, *words)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("damage", "words", "messages"),
    [
        (Path.unlink, (), ("no tokenizer at", "--folder {0}` downloads it")),
        (lambda path: path.write_bytes(b""), (), ("is damaged", "delete it, and `pavdm models pull")),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), (), ("is damaged", "--folder {0}` downloads it again")),
        (lambda path: None, ("--text-device", "moon"), ("--text-device must be one of auto",)),
    ],
)
def test_a_hint_names_what_is_wrong_and_where(damage, words, messages, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "here")
    damage(tmp_path / "here" / "text_encoder" / "spiece.model")
    result = pavdm("generate", PROMPT, "--model", "./here", "--frames", "1", *QUICK, *words)
    assert (result.code, result.out) == (2 if words else 5, "")
    for line in messages:
        assert line.format((tmp_path / "here").resolve()) in result.err


@pytest.mark.parametrize("words", [(), ("--plan",)])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_folder_without_a_part_is_rejected_by_its_name_and_never_planned_in_another_size(
    part, words, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "here", ignore=shutil.ignore_patterns(part))
    result = pavdm("generate", PROMPT, "--model", "./here", "--frames", "1", *QUICK, *words)
    assert (result.code, result.out) == (5, "")
    assert f"error: {(tmp_path / 'here').resolve()} has no {part}\n" in result.err
    assert f"copy or link it from {tmp_path / 'cache' / 'models' / 'opensora-v1.2'}, where `pavdm models" in result.err


@pytest.mark.integration
def test_a_model_that_is_fetched_in_part_is_planned_whole_and_told_how_to_fetch_the_rest(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: 1 << 40)
    fetched = tmp_path / "cache" / "models" / "opensora-v1.2"
    shutil.copytree(folder, fetched, ignore=shutil.ignore_patterns("transformer", "text_encoder"))
    planned = pavdm("generate", PROMPT, "--model", "opensora-v1.2", "--frames", "1", *QUICK, "--plan")
    assert planned.code == 0, planned.err
    assert "text encoder, weights" in planned.out
    result = pavdm("generate", PROMPT, "--model", "opensora-v1.2", "--frames", "1", *QUICK)
    assert result.code == 5
    assert (
        "has no transformer and no text_encoder\nhint: `pavdm models pull opensora-v1.2` downloads what" in result.err
    )


def job(folder: Path | str, frames: int = 17, prompt: str = PROMPT, **kwargs: object) -> GenerationConfig:
    options = {"model": str(folder), "steps": 6, "seed": 1, "device": "cpu"} | kwargs
    return resolve(make_request(prompt, frames=frames, size=(64, 72), **options))


def latents(config: GenerationConfig) -> torch.Tensor:
    return torch.cat(list(pipeline.sample_latents(config, pipeline.open_model(config))), dim=1)


def test_the_words_and_the_scores_reach_the_network(folder):
    plain = latents(job(folder))
    assert torch.equal(plain, latents(job(folder)))
    assert (plain - latents(job(folder, prompt="a boat"))).abs().max() > 1e-4
    assert (plain - latents(job(folder, aesthetic_score=4))).abs().max() > 1e-4


@pytest.mark.parametrize("noised", [False, True])
def test_a_clip_continues_from_its_last_group_or_its_last_window_noised(noised, folder):
    config = job(folder, 20)
    model = pipeline.open_model(config)
    clip = torch.rand(51, 3, 64, 72, generator=torch.Generator().manual_seed(2))
    start = pipeline.state_after_clip(config, model, clip, noised)
    assert start.context.shape[1] == 5
    assert start.window.shape[1] == (10 if noised else 0)
    assert np.concatenate(list(pipeline.generate_frames(config, model, start))).shape == (20, 64, 72, 3)
    assert torch.equal(pipeline.state_after_clip(config, model, clip, noised).context, start.context)


def test_the_unconditional_half_is_the_null_embedding_as_long_as_the_prompt(folder):
    model = pipeline.open_model(job(folder))
    prompt, unconditional = model.embed(PROMPT, cfg=True)
    (alone,) = model.embed(PROMPT, cfg=False)
    assert torch.equal(alone.embeds, prompt.embeds)
    assert torch.equal(unconditional.embeds, model.transformer.y_embedder.y_embedding[: len(prompt.embeds)])
    assert unconditional.mask is prompt.mask is None  # every row is the prompt's


def test_no_prompt_is_the_null_embedding_alone_and_needs_no_text_encoder(folder, monkeypatch):
    model = pipeline.open_model(job(folder))
    monkeypatch.setattr(text_encoder, "load_into", None)
    (nothing,) = model.embed("", cfg=False)
    assert torch.equal(nothing.embeds, model.transformer.y_embedder.y_embedding)
    assert nothing.mask.all()
    wordless = replace(job(folder, 17), prompt="")
    assert torch.cat(list(pipeline.sample_latents(wordless, model)), dim=1).isfinite().all()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_part_that_is_missing_is_one_clear_error(part, folder, tmp_path):
    for present_part in {"transformer", "vae", "text_encoder"} - {part}:
        (tmp_path / present_part).symlink_to(folder / present_part)
    with pytest.raises(ModelError, match=part):
        latents(job(tmp_path))


@pytest.mark.parametrize(("free", "message"), [(1000, "Open-Sora needs"), (27_000_000, "T5 needs")])
def test_weights_that_do_not_fit_are_rejected_before_they_are_loaded(free, message, folder, monkeypatch):
    monkeypatch.setattr(weight_memory, "free_bytes", lambda device: free)
    monkeypatch.setattr(text_encoder, "weight_bytes", lambda *args: 10 * weight_memory.weight_bytes(*args) + 27_000_000)
    with pytest.raises(DeviceError, match=message) as excinfo:
        latents(job(folder))
    assert excinfo.value.exit_code == 6
    assert excinfo.value.hint


@pytest.mark.parametrize("package", optional_imports.PACKAGES)
def test_a_library_that_is_missing_is_one_line_before_any_weight_is_read(package, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, optional_imports.MODULES.get(package, package), None)
    monkeypatch.setattr(opensora_loaded, "load_into", lambda *args: pytest.fail("read weights"))
    with pytest.raises(ModelError, match=f"Open-Sora needs {package}$") as excinfo:
        pipeline.open_model(job(folder))
    assert excinfo.value.hint == install_command("opensora")


def test_weights_are_counted_as_they_will_be_loaded(folder):
    model = pipeline.open_model(job(folder))
    for part, module in (("transformer", model.transformer), ("vae", model.vae)):
        assert isinstance(module, torch.nn.Module)
        size = sum(value.numel() * value.itemsize for value in module.state_dict().values())
        assert weight_memory.weight_bytes(folder / part, torch.float32) == size
        assert weight_memory.weight_bytes(folder / part, torch.bfloat16) == size // 2
    assert weight_memory.free_bytes(torch.device("meta")) is None


def test_a_prompt_of_which_nothing_can_be_read_is_rejected():
    with pytest.raises(UsageError, match="is empty after removing links"):
        resolve(make_request("猫 http://x.com", model="opensora-v1.2"))


@pytest.mark.parametrize("model", ["pocket", "opensora-v1.2"])
def test_a_prompt_of_invalid_unicode_is_rejected(model):
    with pytest.raises(UsageError, match="the prompt is not UTF-8") as excinfo:
        make_request("a red ball \udcff\udcfe", model=model)
    assert excinfo.value.message.isascii()


def test_a_text_encoder_of_another_width_is_rejected_before_weights_are_read(folder, tmp_path, monkeypatch):
    for present_part in ("transformer", "vae"):
        (tmp_path / present_part).symlink_to(folder / present_part)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps(published.T5 | {"d_model": 64}))
    monkeypatch.setattr(opensora_loaded, "load_into", lambda *args: pytest.fail("read weights"))
    with pytest.raises(ModelError, match=r"has hidden size 64 \(d_model\), but the transformer expects 32"):
        pipeline.open_model(job(tmp_path))


def test_a_prompt_is_scored_as_captions_were_only_for_a_model_that_read_such():
    options = {"aesthetic_score": 6.5, "motion_score": 4, "camera_motion": "pan left"}
    scored = "a cat aesthetic score: 6.5. motion score: 4.0. camera motion: pan left."
    assert get("opensora-v1.2").format_prompt("a cat", 1, options).text == scored
    assert "score" not in get("pocket").format_prompt("a red ball", 1, {}).text


@pytest.mark.parametrize("score", [-1, 101, float("nan")])
def test_a_score_that_no_caption_had_is_rejected(score):
    with pytest.raises(UsageError, match="aesthetic-score"):
        check_sampling(make_request(model="opensora-v1.2", aesthetic_score=score))


@pytest.fixture(scope="module")
def recorded() -> STDiT:
    small = STDiT(SMALL)
    small.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    return small.eval().bfloat16()


def rms(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.float() - right.float()).square().mean().sqrt() / right.float().square().mean().sqrt())


def test_in_bfloat16_the_network_is_the_recorded_one_with_rounded_timesteps_and_near_float32_without(recorded):
    case = load_file(GOLDEN / "stdit3_pa_odd.safetensors")
    expected = load_file(GOLDEN / "stdit3_pa_odd_bf16.safetensors")["out"]
    narrow = case | {name: case[name].bfloat16() for name in ("x", "y", "fps")}
    assert rms(run(recorded, narrow, case["timestep"].bfloat16()), expected) < 0.01
    assert rms(run(recorded, narrow, case["timestep"]), expected) > 0.05
    assert rms(run(recorded, narrow, case["timestep"]), case["out"]) < 0.01


def test_levels_are_rounded_like_the_weights_unless_they_are_to_be_exact(recorded):
    sigmas = torch.tensor([0.0, 0.7381, 1.0])
    for exact, times in ((False, [0.0, 740.0, 1000.0]), (True, [0.0, 738.1, 1000.0])):
        expected = recorded.embed_timesteps(torch.tensor(times), torch.tensor(24.0, dtype=torch.bfloat16))
        modulation = compute_modulation(recorded, 1000 * sigmas, 24, exact)
        assert torch.equal(modulation.block, expected.block)
        assert torch.equal(modulation.final, expected.final)
