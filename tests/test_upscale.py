"""Upscaled videos: enlarged when written, and reduced to the model's size by `extend`."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.command import pavdm
from support.models import OPENSORA, POCKET
from support.requests import make_request
from support.scenes import SCENES, paint

from pavdm_cli.commands.info import command
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import extend
from pavdm_cli.generation.request import Extension, Output
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.video import EncoderOptions, VideoWriter, open_video, read_last_frames, read_metadata
from pavdm_cli.video.upscale import Scale, Upscaler, downscale

PROMPT = "a blue kite circling above the sea by day"
QUICK = ("--steps", "6", "--warmup", "0", "--seed", "3", "--threads", "1")
CLIP = to_bytes(paint(SCENES[:1], [n / 8 for n in range(12)]).frames[0])
every_filter = pytest.mark.parametrize("name", ["lanczos", "nearest"])


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.square(image.astype(float) - other).mean())))


def sinc_enlarged(line: np.ndarray, factor: int) -> np.ndarray:
    """Lanczos by its definition, the edge repeated."""
    centres = (np.arange(len(line) * factor) + 0.5) / factor - 0.5
    padded = np.pad(line.astype(float), 8, mode="edge")
    distance = centres[:, None] - np.arange(-8, len(line) + 8)
    weights = np.where(abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return weights @ padded / weights.sum(axis=1)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_the_filter_is_lanczos_in_every_channel(factor):
    frame = np.zeros((5, 33, 3), np.uint8)
    frame[:] = np.stack([100 + 60 * np.sin(np.arange(33) / (2 + channel)) for channel in range(3)], axis=1)
    large = Upscaler(Scale(factor))(frame)
    assert large.shape == (5 * factor, 33 * factor, 3)
    for channel in range(3):
        expected = sinc_enlarged(frame[0, :, channel], factor)
        assert np.abs(large[2, :, channel] - expected).max() <= 1.5


def test_nearest_repeats_pixels_and_solid_colors_are_exact():
    assert np.array_equal(Upscaler(Scale(3, "nearest"))(CLIP[0]), CLIP[0].repeat(3, 0).repeat(3, 1))
    plain = np.full((7, 9, 3), (255, 0, 13), np.uint8)
    assert np.array_equal(Upscaler(Scale(4))(plain), np.full((28, 36, 3), (255, 0, 13)))


@every_filter
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_downscaling_inverts_upscaling(name, factor):
    scale = Scale(factor, name)
    frames = to_bytes(paint(SCENES[:6], [3.0]).frames[:, 0])
    back = [downscale(Upscaler(scale)(frame), scale) for frame in frames]
    assert psnr(np.stack(back), frames) > 58


@every_filter
def test_downscaling_averages_out_noise(name):
    scale, draw = Scale(4, name), np.random.default_rng(0)
    large = Upscaler(scale)(CLIP[0])
    noisy = np.clip(large + draw.normal(0, 6, large.shape), 0, 255).round().astype(np.uint8)
    assert psnr(downscale(noisy, scale), CLIP[0]) > psnr(noisy, large) + 8


def write(path: Path, scale: Scale, about: dict[str, object] | None = None, crf: int = 18) -> Path:
    encoding = EncoderOptions(crf=crf, scale=scale)
    with VideoWriter(path, 96, 64, 8, about, encoding) as writer:
        writer.write(CLIP)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif"])
def test_upscaled_frames_read_back_from_every_container(tmp_path, suffix):
    scale = Scale(4)
    video = open_video(write(tmp_path / f"large.{suffix}", scale))
    assert (video.width, video.height, video.frames) == (384, 256, 12)
    back = read_last_frames(video, Fraction(8), 12, (64, 96), scale)
    small = read_last_frames(open_video(write(tmp_path / f"small.{suffix}", Scale())), Fraction(8), 12, (64, 96))
    assert psnr(back, CLIP) > max(33, psnr(small, CLIP) - 0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "video.mp4"
    result = pavdm("generate", PROMPT, "--frames", "4", *QUICK, "-o", path)
    assert result.code == 0, result.err
    return path


def test_pocket_is_upscaled_to_384x256_by_default(made):
    assert (POCKET.scale, OPENSORA.scale) == (4, 1)
    video = open_video(made)
    assert (video.width, video.height) == (384, 256)
    stored = read_metadata(made)
    assert (stored["scale"], stored["scale_filter"]) == (4, "lanczos")
    assert "--scale 4 --scale-filter lanczos" in command(stored)


def test_scale_1_keeps_the_models_size(made, tmp_path):
    result = pavdm(
        "generate", PROMPT, "--frames", "4", *QUICK, "--scale", "1", "--crf", "0", "-o", tmp_path / "own.mp4"
    )
    assert result.code == 0, result.err
    video = open_video(tmp_path / "own.mp4")
    assert (video.width, video.height) == (96, 64)
    own, large = (
        read_last_frames(video, Fraction(8), 4),
        read_last_frames(open_video(made), Fraction(8), 4, (64, 96), Scale(4)),
    )
    assert psnr(own, large) > 33


def test_extending_keeps_the_scale(made, tmp_path):
    longer, longest = tmp_path / "longer.mp4", tmp_path / "longest.mkv"
    for source, target in ((made, longer), (longer, longest)):
        result = pavdm("extend", source, "--frames", "4", "--steps", "6", "--seed", "3", "--json", "-o", target)
        assert result.code == 0, result.err
        stored = json.loads(result.out)["metadata"]
        assert (stored["scale"], stored["scale_filter"]) == (4, "lanczos")
        assert "--scale" not in command(stored)
    video = open_video(longest)
    assert (video.width, video.height, video.frames) == (384, 256, 12)
    new = read_last_frames(video, Fraction(8), 4)
    enlarged = np.stack([Upscaler(Scale(4))(downscale(frame, Scale(4))) for frame in new])
    assert psnr(enlarged, new) > 40  # they are enlargements, by the same filter


def source(path: Path, scale: Scale, about: dict[str, object]) -> Scale:
    request = make_request("", frames=4, extension=Extension(write(path, scale, about, crf=40)))
    return extend.open_source(request).scale


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"pavdm": "1", "scale": 2, "scale_filter": "nearest"}, Scale(2, "nearest")),
        ({"pavdm": "1", "scale": 3, "scale_filter": "nearest"}, Scale()),  # the file has another size
        ({"pavdm": "1", "scale": 2, "scale_filter": "bicubic"}, Scale()),
        ({"pavdm": "1", "scale": [2], "scale_filter": {}}, Scale()),
        ({"pavdm": "1", "scale": 2.5, "scale_filter": "lanczos"}, Scale()),
        ({"pavdm": "1"}, Scale()),
        ({"scale": 2, "scale_filter": "lanczos"}, Scale()),
    ],
)
def test_an_implausible_stored_scale_is_ignored(tmp_path, about, expected):
    assert source(tmp_path / "video.mp4", Scale(2), about) == expected


@pytest.mark.parametrize("factor", [0, -1, 9, 10**12])
def test_an_absurd_scale_is_rejected(factor):
    result = pavdm("generate", PROMPT, "--scale", factor)
    assert result.code == 2
    assert f"--scale must be 1 to 8, got {factor}" in result.err


def test_a_scale_that_could_not_be_read_again_is_rejected():
    sampling = {"model": "opensora-v1.2"}
    make_request(PROMPT, frames=4, size=(720, 1280), **sampling, output=Output(scale=6))
    with pytest.raises(UsageError, match="8960x5040 pixels: the maximum is 8192x4320"):
        make_request(PROMPT, frames=4, size=(720, 1280), **sampling, output=Output(scale=7))


def test_an_unknown_filter_is_rejected():
    with pytest.raises(UsageError, match="--scale-filter must be one of lanczos, nearest, got 'cubic'"):
        Output(scale_filter="cubic")
