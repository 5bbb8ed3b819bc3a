"""The command that `pavdm info` prints reproduces the frames, for every option."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from support.command import pavdm
from support.decoding import decoded_frames
from support.models import POCKET
from support.tiers import integration
from support.wan import write_checkpoint

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models import registry
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.runtime.untrusted import stored_kinds

PROMPT = "a red ball over green hills"
EXTENSION_QUICK = ("--frames", "4", "--steps", "6", "--threads", "1", "--seed", "3")
POCKET_QUICK = (*EXTENSION_QUICK, "--warmup", "0")
TINY_QUICK = ("--frames", "5", "--steps", "6", "--threads", "1", "--seed", "3", "--size", "72x64", "--device", "cpu")
# A value that is not the default, for every field that changes frames: of pocket, or of a tiny Open-Sora.
POCKET_CASES = {
    "seed": ("--seed", "8"),
    "frames": ("--frames", "6"),
    "steps": ("--steps", "12"),
    "window": ("--window", "6"),
    "chunk": ("--chunk", "1"),
    "context": ("--context", "0"),
    "sink": ("--frames", "40", "--context", "2", "--sink", "1"),
    "method": ("--method", "fifo"),
    "guidance": ("--guidance", "3"),
    "solver": ("--solver", "unipc"),
    "ramp_up": ("--ramp-up", "full"),
    "stride": ("--method", "windows", "--stride", "3"),
    "warmup": ("--warmup", "1"),
    "loop": ("--loop", "--frames", "32"),
    "timeline": ("--frames", "12", "--at", "0.5s", "at night", "--at", "1s", "a blue kite"),
    "forever": ("--seconds", "forever", "--frames", "6"),
    "blend": ("--frames", "12", "--at", "0.5s", "at night", "--blend", "1"),
    "device": ("--device", "cpu"),
    "threads": ("--threads", "2"),
    "attention": ("--attention", "sdpa-math"),
    "context_cache": ("--context-cache", "recompute"),
    "precision": ("--precision", "bf16"),
    "fp32_timesteps": ("--precision", "bf16", "--fp32-timesteps"),
    "crf": ("--crf", "30"),
    "scale": ("--scale", "2"),
    "scale_filter": ("--scale-filter", "nearest"),
}
TINY_CASES = {
    "reencode": ("--method", "rn", "--no-reencode", "--window", "5", "--frames", "30"),
    "edit_ratio": ("--method", "rn", "--edit-ratio", "0.3", "--window", "5", "--frames", "30"),
    "cfg_batching": ("--cfg-batching", "sequential"),
    "vae_batch_size": ("--vae-batch-size", "2"),
    "vae_tiling": ("--vae-tiling", "on"),
    "size": ("--size", "64x64"),
    "fps": ("--fps", "12"),
    "aesthetic_score": ("--aesthetic-score", "5"),
    "motion_score": ("--motion-score", "4"),
    "camera_motion": ("--camera-motion", "pan left"),
    "text_device": ("--text-device", "cpu"),
}
WAN_CASES = {
    "negative_prompt": ("--negative-prompt", "blurry"),
    "shift": ("--shift", "3"),
    "context_noise": ("--context-noise", "20", "--context", "1"),
}
ELSEWHERE = {"compile"}  # needs a C++ compiler; tests/test_compiled.py


def made_again(path: Path) -> np.ndarray:
    """The frames of the command that `info` prints."""
    command = shlex.split(pavdm("info", path).out.splitlines()[-1])
    again = path.with_stem("again")
    done = pavdm(*command[1:], "-o", again)
    assert done.code == 0, done.err
    return decoded_frames(again)


def test_every_field_that_changes_frames_is_covered():
    stored = {*stored_kinds(GenerationConfig), *stored_kinds(ExecutionConfig)}
    options = {option.key for option in registry.options().values() if option.changes_frames}
    assert stored | options <= {*POCKET_CASES, *TINY_CASES, *WAN_CASES, *ELSEWHERE}


QUICK_CASES = ("steps", "context", "guidance")
SLOW_CASES = [name for name in POCKET_CASES if name not in QUICK_CASES]


@pytest.mark.parametrize("name", [*QUICK_CASES, *integration(*SLOW_CASES)])
@pytest.mark.integration
def test_the_printed_command_of_pocket_makes_the_same_frames(name, tmp_path):
    path = tmp_path / "v.mp4"
    assert pavdm("generate", PROMPT, *POCKET_QUICK, *POCKET_CASES[name], "-o", path).code == 0
    assert np.array_equal(decoded_frames(path), made_again(path))


@pytest.mark.integration
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", TINY_CASES)
def test_the_printed_command_of_a_larger_model_makes_the_same_frames(name, folder, tmp_path):
    path = tmp_path / "v.mp4"
    done = pavdm("generate", PROMPT, "--model", folder, *TINY_QUICK, *TINY_CASES[name], "-o", path)
    assert done.code == 0, done.err
    assert np.array_equal(decoded_frames(path), made_again(path))


@pytest.mark.integration
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", WAN_CASES)
def test_the_printed_command_of_wan_makes_the_same_frames(name, tmp_path):
    folder, path = write_checkpoint(tmp_path / "tiny"), tmp_path / "v.mp4"
    quick = ("--steps", "4", "--window", "4", "--chunk", "2", "--guidance", "2", "--size", "128x128", "--threads", "1")
    done = pavdm("generate", PROMPT, "--model", folder, "--frames", "13", *quick, *WAN_CASES[name], "-o", path)
    assert done.code == 0, done.err
    assert np.array_equal(decoded_frames(path), made_again(path))


@pytest.mark.integration
@pytest.mark.parametrize("options", [(), ("--start", "noised"), ("--only-new",), ("--audio", "drop"), ("--crf", "30")])
def test_the_printed_command_of_an_extension_makes_the_same_frames(options, tmp_path):
    source, path = tmp_path / "s.mp4", tmp_path / "v.mp4"
    assert pavdm("generate", PROMPT, *POCKET_QUICK, "-o", source).code == 0
    assert pavdm("extend", source, *EXTENSION_QUICK, *options, "-o", path).code == 0
    assert np.array_equal(decoded_frames(path), made_again(path))


def test_an_image_that_was_the_first_frame_is_in_the_command(tmp_path):
    from PIL import Image

    picture, path = tmp_path / "p.png", tmp_path / "v.mp4"
    Image.new("RGB", (POCKET.size[1], POCKET.size[0]), (40, 90, 160)).save(picture)
    assert pavdm("generate", PROMPT, *POCKET_QUICK, "--image", picture, "-o", path).code == 0
    assert np.array_equal(decoded_frames(path), made_again(path))
