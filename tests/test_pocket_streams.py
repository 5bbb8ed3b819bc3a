"""Pocket's frames at both sizes and both rates: the same latents, and frames between the coded ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.models import MODELS
from support.tiny import SIZE, tiny_vae
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import Request
from pavdm_cli.models import registry
from pavdm_cli.models.pocket.frame_format import FrameFormat, frame_format
from pavdm_cli.models.pocket.streams import DecodeStream, decode_stream, encode_stream
from pavdm_cli.models.streams import run_stream

FORMATS = [FrameFormat(large, fast) for large, fast in itertools.product((False, True), repeat=2)]
LARGE = FrameFormat(is_large=True, is_fast=True)


def latents(count: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, count, 4, 2, 3, generator=torch.Generator().manual_seed(0))


def frames(count: int, format: FrameFormat) -> Tensor:
    height, width = (side * (2 if format.is_large else 1) for side in SIZE)
    return torch.rand(1, count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 3), (3, 0, 2)])
def test_any_grouping_of_the_latents_gives_the_same_frames(format, sizes):
    vae, z = tiny_vae(), latents(5, batch=2)
    stream = DecodeStream(vae, format)
    parts = [stream.push(part) for part in z.split(sizes, dim=1)]
    whole = DecodeStream(vae, format).push(z)
    assert torch.equal(torch.cat([part for part in parts if part.shape[1]], dim=1), whole)


@pytest.mark.parametrize("format", FORMATS)
def test_a_decoder_is_rebuilt_from_the_latents_that_it_asks_for(format):
    vae, z = tiny_vae(), latents(4)
    stream = DecodeStream(vae, format)
    stream.push(z[:, :2])
    assert stream.replay == int(format.is_fast)
    rest = stream.push(z[:, 2:])
    assert torch.equal(decode_stream(vae, format, z[:, 2 - int(format.is_fast) : 2]).push(z[:, 2:]), rest)
    if format.is_fast:
        assert not torch.equal(decode_stream(vae, format, z[:, :1]).push(z[:, 2:]), rest)


@pytest.mark.parametrize("format", FORMATS)
def test_the_number_of_frames_is_that_of_the_layout(format):
    vae, z = tiny_vae(), latents(3)
    decoded = run_stream(DecodeStream(vae, format), z)
    assert decoded.shape[1] == format.first + 2 * format.rest
    assert decoded.shape[-2:] == tuple(side * (2 if format.is_large else 1) for side in SIZE)
    assert (decoded.amin() >= 0, decoded.amax() <= 1) == (True, True)
    encoded = run_stream(encode_stream(vae, format), decoded)
    assert encoded.shape == z.shape


def test_between_two_coded_frames_lies_the_frame_of_their_mean_code():
    vae, z = tiny_vae(), latents(2)
    codes = torch.stack(z[0].chunk(2, dim=1), dim=1).flatten(0, 1)  # four, in order
    means = (codes[:-1] + codes[1:]) / 2
    expected = torch.stack([f for pair in itertools.zip_longest(codes, means) for f in pair if f is not None])
    decoded = DecodeStream(vae, LARGE).push(z)[0]
    torch.testing.assert_close(decoded, vae.decode_large_frames(expected).clamp(0, 1))


@pytest.mark.parametrize("is_large", [False, True])
def test_at_the_double_rate_every_other_frame_is_that_of_the_coded_rate(is_large):
    vae, z = tiny_vae(), latents(3)
    slow, fast = (DecodeStream(vae, FrameFormat(is_large, is_fast)).push(z) for is_fast in (False, True))
    torch.testing.assert_close(fast[:, ::2], slow)


@pytest.mark.parametrize("sizes", [(1,) * 11, (3, 4, 4), (10, 1), (2, 2, 2, 2, 3)])
def test_encoding_piece_by_piece_is_encoding_at_once(sizes):
    vae, video = tiny_vae(), frames(11, LARGE)
    stream = encode_stream(vae, LARGE)
    parts = [stream.push(part) for part in video.split(sizes, dim=1)]
    whole = encode_stream(vae, LARGE).push(video)
    assert whole.shape[1] == 3
    assert torch.equal(torch.cat([part for part in parts if part.shape[1]], dim=1), whole)


def test_large_and_fast_frames_are_encoded_as_the_small_slow_ones_that_they_contain():
    vae, video = tiny_vae(), frames(7, LARGE)
    small = torch.nn.functional.avg_pool2d(video[0], 2)[None]
    torch.testing.assert_close(encode_stream(vae, LARGE).push(video), vae.encode(small[:, ::2]))


def test_frames_that_do_not_fill_a_latent_are_dropped():
    vae, video = tiny_vae(), frames(9, LARGE)
    stream = encode_stream(vae, LARGE)
    assert torch.equal(stream.push(video), encode_stream(vae, LARGE).push(video[:, :7]))
    assert stream.flush().shape[1] == 0


@pytest.mark.parametrize(("size", "fps", "first", "rest"), [((128, 192), 16, 3, 4), ((64, 96), 8, 2, 2)])
def test_the_layout_has_the_frames_of_the_size_and_the_rate(size, fps, first, rest):
    layout = registry.get("pocket").layout(size, fps)
    assert (layout.shape, layout.first, layout.rest) == ((24, 8, 12), first, rest)
    assert (frame_format(size, fps).first, frame_format(size, fps).rest) == (first, rest)


@pytest.mark.parametrize(("size", "scale"), [((128, 192), 2), ((64, 96), 4)])
def test_files_have_the_same_size_whatever_the_model_makes(size, scale):
    request = Request("a ball", size=size)
    assert request.output.resolve_scale(request.spec) == scale


def test_another_size_or_rate_is_one_clear_error():
    with pytest.raises(UsageError, match="pocket supports 192x128 or 96x64, got 320x240"):
        MODELS["pocket"].check_size((240, 320))
    with pytest.raises(UsageError, match="pocket supports 8 or 16 fps, got 12"):
        MODELS["pocket"].check_fps(12)
