"""Products in bfloat16: asked for, told in the file, and the same video but for what the eye cannot see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.requests import make_request
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.commands.info import command
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import pipeline, provenance
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import REFERENCE, ExecutionConfig
from pavdm_cli.models.stdit.layers import Linear, Mlp
from pavdm_kernels import linear, use_reference

DEFAULT = ExecutionConfig()
PROMPT = "a red ball over hills"


def video(precision: str, engine: ExecutionConfig = DEFAULT) -> np.ndarray:
    sampling = {"seed": 3, "device": "cpu", "warmup": 0, "precision": precision, "execution": engine}
    job = resolve(make_request(PROMPT, frames=12, **sampling))
    return np.concatenate(list(pipeline.generate_frames(job, pipeline.open_model(job)))).astype(float)


def test_a_video_in_bfloat16_is_nearly_the_one_in_float32() -> None:
    apart = np.abs(video("bf16") - video("fp32"))
    assert 0.01 < apart.mean() < 1  # of 255: something was rounded, and little
    assert apart.max() <= 32  # 26 on a CPU without bfloat16 instructions


@pytest.mark.integration
def test_the_model_itself_stays_in_float32() -> None:
    assert np.array_equal(video("auto"), video("fp32"))


@pytest.mark.integration
def test_timesteps_that_are_not_rounded_make_another_video_and_the_file_says_so() -> None:
    options = {"seed": 3, "device": "cpu", "warmup": 0, "precision": "bf16"}
    videos, said = [], []
    for sampling in (options, options | {"fp32_timesteps": True}):
        job = resolve(make_request(PROMPT, frames=4, **sampling))
        model = pipeline.open_model(job)
        videos.append(np.concatenate(list(pipeline.generate_frames(job, model))))
        said.append("--fp32-timesteps" in command(provenance.collect_metadata(job, model)))
    assert not np.array_equal(*videos)
    assert said == [False, True]


@pytest.mark.integration
def test_plain_operations_know_it_too() -> None:
    assert np.abs(video("bf16", REFERENCE) - video("bf16")).mean() < 0.5


@pytest.mark.parametrize("gelu", [False, True])
def test_a_narrow_weight_decides_the_product_and_the_result_is_wide(gelu: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 32), (48, 32), (48,)))
    narrow, narrow_bias = weight.bfloat16(), bias.bfloat16()
    exact = linear(x.bfloat16().double(), narrow.double(), narrow_bias.double(), gelu)
    with torch.no_grad():
        fast = linear(x, narrow, narrow_bias, gelu)
        with use_reference():
            plain = linear(x, narrow, narrow_bias, gelu)
    for got in (fast, plain):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=2**-7, atol=2**-7)
    assert not torch.equal(fast, linear(x, weight, bias, gelu))


def test_between_the_layers_of_an_mlp_nothing_is_widened() -> None:
    mlp, seen = Mlp(16, 32, 16).to(torch.bfloat16), []
    mlp.fc2.register_forward_hook(lambda layer, given, out: seen.append((given[0].dtype, out.dtype)))
    with torch.no_grad():
        assert mlp(torch.randn(3, 16)).dtype == torch.float32
    assert seen == [(torch.bfloat16, torch.bfloat16)]


def test_only_products_are_narrow() -> None:
    job = resolve(make_request(PROMPT, frames=4, device="cpu", precision="bf16"))
    model = pipeline.open_model(job).transformer
    narrow = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    layers = {name for name, layer in model.named_modules() if isinstance(layer, Linear)}
    assert {name.rpartition(".")[0] for name in narrow} == layers


def test_the_file_says_it_and_the_command_that_makes_it_again_asks_for_it(tmp_path: Path) -> None:
    out = tmp_path / "video.mp4"
    words = f"--frames 4 --seed 1 --device cpu --precision bf16 -o {out}".split()
    assert CliRunner().invoke(app, ["generate", PROMPT, *words]).exit_code == 0
    assert json.loads(CliRunner().invoke(app, ["info", str(out), "--json"]).stdout)["precision"] == "bf16"
    assert "--precision bf16" in " ".join(CliRunner().invoke(app, ["info", str(out)]).stdout.split())


def test_open_sora_is_run_as_its_weights_are_on_a_device() -> None:
    with pytest.raises(UsageError, match=r"of opensora-v1\.2 must be fp32 here, got 'bf16'"):
        resolve(make_request("x", seconds=1, model="opensora-v1.2", device="cpu", precision="bf16"))
