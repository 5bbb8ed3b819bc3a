"""Models with random weights: at full size, deterministic, and able to make a video."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models import load
from support.requests import make_request

from pavdm_cli.bench import architectures
from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import registry
from pavdm_cli.models.opensora import config, loaded
from pavdm_cli.models.opensora.spatial_vae import SpatialConfig
from pavdm_cli.models.opensora.temporal_vae import TemporalConfig
from pavdm_cli.models.opensora.vae import OpenSoraVAE, VAEConfig, latent_statistics
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.stdit.layers import rotary_frequencies
from pavdm_cli.models.stdit.transformer import STDiT

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")
SMALL = replace(config.XL2, hidden=64, depth=2, heads=4)
VAE = VAEConfig(SpatialConfig((8, 8, 16, 16), groups=4), TemporalConfig(filters=8, blocks=1, groups=4))


def small(dtype: torch.dtype = torch.float32) -> STDiT:
    return init_random(lambda: STDiT(SMALL), CPU, dtype, {"rope.freqs": rotary_frequencies(SMALL.head_dim)})


def test_every_weight_is_random_but_those_that_training_leaves_alone():
    model = small()
    assert torch.equal(model.rope.freqs, STDiT(SMALL).rope.freqs)
    for name, weight in model.state_dict().items():
        assert weight.isfinite().all()
        assert weight.std() > 1e-3, name
    assert not any(p.requires_grad for p in model.parameters())


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_are_in_the_precision_they_run_in():
    assert {value.dtype for value in small(torch.bfloat16).state_dict().values()} == {torch.bfloat16}
    assert config.text_encoder_dtype(torch.device("cuda")) == torch.bfloat16
    assert config.text_encoder_dtype(CPU) == torch.float32


def test_the_transformer_has_the_published_size():
    with torch.device("meta"):
        real = STDiT(config.XL2)
    parameters = dict(real.named_parameters())
    kinds = {name: "param" if name in parameters else "buffer" for name in real.state_dict()}
    ours = {f"{name} {list(value.shape)} {kinds[name]}" for name, value in real.state_dict().items()}
    assert ours == set((GOLDEN / "stdit3_xl2_params.txt").read_text().splitlines()[1:])
    assert sum(p.numel() for p in parameters.values()) == 1_207_643_972


@pytest.fixture
def tiny(monkeypatch):
    """Open-Sora with its sizes made small, through everything that loads it."""
    monkeypatch.setattr(config, "XL2", SMALL)
    monkeypatch.setattr(loaded, "XL2", SMALL)
    monkeypatch.setattr(loaded, "VAEConfig", lambda: VAE)


def job(frames: int, **options: object) -> GenerationConfig:
    sampling = {"model": "opensora-v1.2", "steps": 6, "seed": 1, "device": "cpu"} | options
    return resolve(make_request("a red balloon over hills", frames=frames, size=(64, 72), **sampling))


@pytest.mark.parametrize(("method", "chunk"), [("pa", None), ("fifo", 1), ("rw", None)])
@pytest.mark.usefixtures("tiny")
def test_a_model_with_random_weights_makes_a_video(method, chunk):
    config = job(20, method=method, chunk=chunk)
    model = load(config.spec, CPU, init="random")
    frames = list(pipeline.generate_frames(config, model))
    assert [part.shape for part in frames] == [(17, 64, 72, 3), (3, 64, 72, 3)] or method == "rw"
    assert sum(len(part) for part in frames) == 20
    assert frames[0].std() > 1
    assert model.noise_shape() == (1, 4, 8, 9)


@pytest.mark.usefixtures("tiny")
def test_pocket_can_have_random_weights():
    config = resolve(make_request("a red balloon", frames=2, steps=6, seed=1))
    model = load(config.spec, CPU, init="random")
    assert next(pipeline.generate_frames(config, model)).shape == (2, 64, 96, 3)


@pytest.mark.usefixtures("tiny")
def test_weights_that_are_not_there_are_one_clear_error():
    with pytest.raises(ModelError, match=r"no weights of opensora-v1\.2"):
        pipeline.open_model(job(1))


@pytest.mark.usefixtures("tiny")
def test_clean_and_noisy_latents_see_each_other_and_positions_follow_the_size():
    config, calls = job(8 * 17), []
    model = load(config.spec, CPU, init="random")

    def note(module, inputs, options, out):
        calls.append((inputs[0].shape[1], options["size"]))

    model.transformer.register_forward_hook(note, with_kwargs=True)
    list(pipeline.sample_latents(config, model))
    assert {size for _, size in calls} == {(64, 72)}
    assert max(length for length, _ in calls) == 30 + 5
    assert config.chunks == 8


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u2003"])
@pytest.mark.parametrize("model", registry.MODELS)
def test_a_blank_prompt_is_rejected_for_every_model(model, text):
    with pytest.raises(UsageError, match="the prompt is empty"):
        resolve(make_request(text, model=model))


def test_normalization_is_that_of_the_recorded_weights():
    vae = init_random(lambda: OpenSoraVAE(VAE), CPU, torch.float32, latent_statistics())
    assert vae.scale.flatten().tolist() == pytest.approx([3.85, 2.32, 2.33, 3.06])
    assert vae.shift.flatten().tolist() == pytest.approx([-0.10, 0.34, 0.27, 0.98])


@pytest.mark.integration
def test_denoising_alone_is_measured_without_the_libraries_of_the_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("diffusers", "diffusers.models.autoencoders.autoencoder_kl", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(loaded, "XL2", SMALL)
    monkeypatch.setattr(config, "XL2", SMALL)
    model = architectures.random_model(architectures.find_architecture("opensora-v1.2"), CPU)
    assert all(torch.equal(value, small().state_dict()[name]) for name, value in model.transformer.state_dict().items())
    with pytest.raises(ModelError, match="diffusers"):
        architectures.random_model(architectures.find_architecture("opensora-v1.2"), CPU, with_vae=True)
