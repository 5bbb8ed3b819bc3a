"""`--vae-batch-size`: how many frames are in the VAE at a time, stored with the video where it is not the default."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import pavdm
from support.models import load
from support.requests import make_request

from pavdm_cli.commands.info import reproducing_command
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import memory_plan
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.stored_request import build_resolved_request
from pavdm_cli.models.execution import MAX_VAE_BATCH_SIZE, VAE_BATCH_SIZE, ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import read_metadata

pytestmark = pytest.mark.usefixtures("own_cache")

PROMPT = "a red ball over green hills"


def config_of(model: Path | str, vae_batch_size: int = 0) -> GenerationConfig:
    request = make_request(PROMPT, model=str(model), frames=17, steps=6, seed=1, device="cpu")
    return resolve(replace(request, execution=replace(request.execution, vae_batch_size=vae_batch_size)))


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelRunner:
    return load(config_of(folder).spec)


@pytest.mark.parametrize("vae_batch_size", [*range(1, 9), MAX_VAE_BATCH_SIZE])
def test_the_metadata_and_the_command_have_it_unless_it_is_the_default(
    vae_batch_size: int, folder: Path, model: ModelRunner
) -> None:
    metadata = collect_metadata(config_of(folder, vae_batch_size), model)
    _, _, words = reproducing_command(metadata)
    if vae_batch_size == VAE_BATCH_SIZE:
        assert metadata == collect_metadata(config_of(folder), model)
        assert "--vae-batch-size" not in words
    else:
        assert metadata == collect_metadata(config_of(folder), model) | {"vae_batch_size": vae_batch_size}
        assert words[words.index("--vae-batch-size") + 1] == str(vae_batch_size)


def test_a_model_of_one_size_never_stores_it(model: ModelRunner) -> None:
    assert collect_metadata(config_of("pocket", 2), model) == collect_metadata(config_of("pocket"), model)


@pytest.mark.integration
def test_what_memory_leaves_is_stored_and_a_chosen_one_stays(
    folder: Path, model: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder)
    fits = memory_plan.estimate_plan(
        config.with_execution(vae_batch_size=1, vae_tiling="off", cfg_batching="sequential")
    )
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: max(fits.devices[0].needs))
    planned = memory_plan.choose_plan(config).config
    assert planned.execution.vae_batch_size == collect_metadata(planned, model)["vae_batch_size"] == 1
    chosen = memory_plan.choose_plan(config_of(folder, VAE_BATCH_SIZE)).config
    assert chosen.execution.vae_batch_size == VAE_BATCH_SIZE


def test_a_resumed_video_keeps_it(folder: Path, model: ModelRunner) -> None:
    for config in (config_of(folder), config_of(folder).with_execution(vae_batch_size=1)):
        resumed = resolve(build_resolved_request(config, model, Output()))
        assert resumed.execution.vae_batch_size == config.execution.vae_batch_size
        assert "vae_batch_size" not in resumed.auto_switches


@pytest.mark.parametrize("vae_batch_size", [-1, MAX_VAE_BATCH_SIZE + 1])
def test_a_batch_out_of_range_is_rejected(vae_batch_size: int) -> None:
    with pytest.raises(UsageError, match="--vae-batch-size must be 0 to 64"):
        ExecutionConfig(vae_batch_size=vae_batch_size)


@pytest.mark.integration
def test_the_command_of_info_makes_the_same_file(folder: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "v.mp4", tmp_path / "again.mp4"
    quick = ("--frames", 5, "--steps", 6, "--seed", 3, "--threads", 1, "--size", "72x64", "--device", "cpu")
    options = ("--model", folder, "--attention", "sdpa", "--vae-batch-size", 2)
    assert pavdm("generate", PROMPT, *options, *quick, "-o", path).code == 0
    command = shlex.split(pavdm("info", path).out.splitlines()[-1])
    assert pavdm(*command[1:], "-o", again).code == 0
    assert (read_metadata(path) or {})["vae_batch_size"] == 2
    assert again.read_bytes() == path.read_bytes()
