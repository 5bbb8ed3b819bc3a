"""Slow commands with the Wan family: fine-tuning in one and two processes, memory, timing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import clips
from support.command import CommandResult, pavdm, pavdm_process
from support.models import find, load, meta_of
from support.tiers import long
from support.wan import tiny_vae, write_checkpoint

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import MemoryTracker
from pavdm_cli.models.meta_model import estimate_vae_memory
from pavdm_cli.models.torch_compile import missing_requirement
from pavdm_cli.models.wan.vae_streams import decode_stream

pytestmark = pytest.mark.usefixtures("own_cache")
SIZES = ("--size", "128x128", "--window", "4", "--chunk", "2")


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    """A command that fine-tunes a tiny checkpoint on two clips."""
    write_checkpoint(tmp_path / "tiny", "original")
    (tmp_path / "videos").mkdir()
    for number, name in enumerate("ab"):
        frames = clips.grays(9, 128, 128)[number:] * 5
        clips.make(tmp_path / "videos" / f"{name}.mp4", frames[:34], clips.ClipSpec(rate=Fraction(24)))
        (tmp_path / "videos" / f"{name}.txt").write_text("a red balloon")
    words = [
        "train",
        "denoiser",
        "--init",
        tmp_path / "tiny",
        "--data",
        tmp_path / "videos",
        "--output-dir",
        tmp_path / "run",
    ]
    words += [
        *SIZES,
        "--steps",
        2,
        "--checkpoint-every",
        1,
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--batch-size",
        2,
    ]
    return [*map(str, words), "--validation-videos", "0", "--warmup", "1"]


def check_trained(folder: Path) -> None:
    before = load_file(folder / "tiny" / "model.safetensors")
    after = load_file(folder / "run" / "model" / "diffusion_pytorch_model.safetensors")
    assert after.keys() == before.keys()
    assert not torch.equal(after["blocks.0.self_attn.q.weight"], before["blocks.0.self_attn.q.weight"])
    assert all(weight.isfinite().all() for weight in after.values())
    assert load(find(str(folder / "run" / "model"))).transformer  # a checkpoint in the layout of its source


@pytest.mark.integration
def test_a_checkpoint_is_fine_tuned_and_loads_again(training: list[str], tmp_path: Path) -> None:
    done = pavdm(*training)
    assert done.code == 0, done.err
    check_trained(tmp_path)


def torchrun(*words: str, processes: int = 2) -> CommandResult:
    """Run a command with torchrun."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return pavdm_process(*words, start=[*start, "-m", "pavdm_cli"])


@pytest.mark.integration
def test_two_processes_fine_tune_a_checkpoint_with_sharded_weights(training: list[str], tmp_path: Path) -> None:
    result = torchrun(*training)
    assert result.code == 0, result.err
    check_trained(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("run", [pavdm, *long(partial(torchrun, processes=1)), torchrun])
def test_adapters_are_trained_and_used(run: Callable[..., CommandResult], training: list[str], tmp_path: Path) -> None:
    done = run(*training, "--lora-rank", "4")
    assert done.code == 0, done.err
    factors = load_file(tmp_path / "run" / "lora.safetensors")
    assert all(factor.isfinite().all() for factor in factors.values())
    assert factors["diffusion_model.blocks.0.self_attn.q.lora_B.weight"].any()
    words = ["generate", "a red balloon", "--model", tmp_path / "tiny", *SIZES, "--frames", "5", "--steps", "2"]
    done = pavdm(*words, "--lora", tmp_path / "run" / "lora.safetensors", "-o", tmp_path / "out.mp4")
    assert done.code == 0, done.err


@pytest.mark.integration
def test_the_plan_counts_the_features_that_decoding_carries(tmp_path: Path) -> None:
    tiny = write_checkpoint(tmp_path / "tiny")
    job = resolve(Request("a kite", frames=5, size=(128, 128), model=str(tiny)))
    stream, z = decode_stream(tiny_vae("2.1")), torch.randn(1, 6, 16, 16, 16)

    def decode() -> None:
        for latent in z.split(1, dim=1):
            stream.push(latent)

    with MemoryTracker() as live:
        peak = live.peak_bytes(decode)
    counted = estimate_vae_memory(meta_of(job), torch.device("cpu"), frames=17)
    assert counted.decoding == pytest.approx(peak, rel=0.15)
    assert counted.encoding > 0


def test_offloaded_blocks_give_the_same_latents(tmp_path: Path) -> None:
    spec = replace(find(str(write_checkpoint(tmp_path / "tiny"))), size=(128, 128))

    def latents(mode: str) -> torch.Tensor:
        sizes = {"frames": 5, "size": (128, 128), "steps": 2, "window": 4, "chunk": 2}
        job = resolve(Request("a kite", model=spec.name, execution=ExecutionConfig(offload=mode), **sizes))
        return torch.cat(list(pipeline.sample_latents(job, pipeline.open_model(job))), dim=1)

    expected = latents("none")
    assert torch.equal(latents("sequential"), expected)
    assert torch.equal(latents("model"), expected)


@pytest.mark.integration
def test_a_compiled_video_has_the_frames_of_the_eager_one_within_rounding(tmp_path: Path) -> None:
    if reason := missing_requirement(torch.device("cpu")):
        pytest.skip(f"needs {reason[0]}")
    words = ["generate", "a kite", "--model", write_checkpoint(tmp_path / "tiny"), *SIZES, "--steps", "4"]
    words += ["--frames", "9", "--seed", "1", "--precision", "fp32", "--device", "cpu"]
    words += ["-o", "-", "--stream-format", "rawvideo"]
    command = [sys.executable, "-m", "pavdm_cli", *map(str, words)]
    eager, compiled = (
        np.frombuffer(subprocess.run([*command, *flag], capture_output=True, check=True).stdout, np.uint8)
        for flag in ([], ["--compile"])
    )
    assert eager.size == 9 * 128 * 128 * 3
    assert np.abs(eager.astype(int) - compiled).max() <= 1
