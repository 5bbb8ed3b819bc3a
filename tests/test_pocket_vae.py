"""The VAE of pocket: it keeps objects and their motion, and any run of latents decodes alone."""

from __future__ import annotations

import pytest
import torch
from support.models import MODELS
from support.tiny import SIZE, VAE_CONFIG, tiny_vae
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import VAE_FILE
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import sample_scene
from pavdm_cli.training.pocket import vae as training
from pavdm_cli.training.pocket.vae import FrameBatch, FrameSampling, reconstruction_psnr

HELD_OUT = 9_000_000  # scenes that nothing was trained on


@pytest.fixture(scope="module")
def shipped() -> PocketVAE:
    return checkpoint.load_vae(MODELS["pocket"].folder / VAE_FILE)


@pytest.fixture(scope="module")
def stills() -> SceneFrames:
    """32 frames of as many held-out scenes, each from somewhere in its first minute."""
    seconds = 60 * torch.rand(32, 1, generator=torch.Generator().manual_seed(0))
    return render([sample_scene(HELD_OUT + i) for i in range(32)], seconds, canvas(MODELS["pocket"].size, 0.3))


def clip(frames: int, size: tuple[int, int], scenes: int = 1) -> Tensor:
    seconds = torch.arange(frames).expand(scenes, -1) / 8
    return render([sample_scene(HELD_OUT + i) for i in range(scenes)], seconds, canvas(size, 0.3)).frames


def test_the_shipped_vae_reconstructs_both_sizes(shipped):
    seconds = 60 * torch.rand(16, 1, generator=torch.Generator().manual_seed(0))
    frames = training.render_pairs(range(HELD_OUT, HELD_OUT + 16), seconds, FrameSampling())
    (small, small_object), (large, large_object) = reconstruction_psnr(shipped, frames)
    assert (small >= 32, small_object >= 25) == (True, True)
    assert (large >= 30, large_object >= 24) == (True, True)


@torch.no_grad()
def test_shipped_latents_have_no_mean_and_unit_variance(shipped, stills):
    codes = shipped.encode_frames(stills.frames.flatten(0, 1))
    assert codes.mean((0, 2, 3)).abs().max() < 0.25
    assert ((codes.var((0, 2, 3)) - 1).abs() < 0.2).all()
    assert codes.var().item() == pytest.approx(1, abs=0.15)


@torch.no_grad()
def test_motion_is_as_large_within_a_latent_as_between_two_and_as_in_the_video(shipped):
    real = clip(8, MODELS["pocket"].size, scenes=16)
    coded = shipped.decode(shipped.encode(real))
    change, wanted = (video.diff(dim=1).abs().mean((0, 2, 3, 4)) for video in (coded, real))
    ratio = change / wanted
    assert (ratio - 1).abs().max() < 0.2
    assert ratio[0::2].mean().item() == pytest.approx(ratio[1::2].mean().item(), abs=0.03)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunk_by_chunk_is_all_at_once_bit_for_bit(chunk, shipped):
    latents = shipped.encode(clip(12, MODELS["pocket"].size, scenes=2))
    whole = shipped.decode(latents)
    parts = [shipped.decode(part) for part in latents.split(chunk, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(shipped.decode(latents[1:]), whole[1:])


@torch.no_grad()
def test_a_latent_is_its_own_frames_and_nothing_else():
    vae, frames = tiny_vae(), clip(8, SIZE, scenes=2)
    latents = vae.encode(frames)
    assert latents.shape == (2, 4, 4, 2, 3)
    other = frames.clone()
    other[:, 2:4] = 0
    changed = (vae.encode(other) != latents).any(-1).any(-1).any(-1).any(0)
    assert changed.tolist() == [False, True, False, False]
    spoiled = latents.clone()
    spoiled[:, 2] += 1
    changed = (vae.decode(spoiled) != vae.decode(latents)).any(-1).any(-1).any(-1).any(0)
    assert changed.tolist() == [False, False, False, False, True, True, False, False]


@torch.no_grad()
def test_the_frames_of_a_latent_are_stacked_in_order():
    vae, frames = tiny_vae(), clip(2, SIZE)
    first, second = vae.encode(frames)[0, 0].split(VAE_CONFIG.channels)
    torch.testing.assert_close(torch.stack([first, second]), vae.encode_frames(frames[0]))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_what_comes_out_is_frames_of_the_same_size_from_0_to_1():
    vae, frames = tiny_vae(), clip(4, SIZE, scenes=2)
    out = vae.decode(100 * vae.encode(frames))
    assert out.shape == frames.shape
    assert (out.min(), out.max()) == (0, 1)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(3, 16, 24), (1, 16, 24), (2, 15, 24), (2, 16, 20), (2, 4, 4), (5, 17, 23)]
)
def test_odd_counts_and_sides_are_one_clear_error(frames, height, width):
    with pytest.raises(UsageError, match=f"got {frames} frames? of {width}x{height}") as caught:
        tiny_vae().encode(torch.zeros(1, frames, 3, height, width))
    assert "groups of 2 frames with sides in multiples of 8" in caught.value.message


@torch.no_grad()
def test_quality_is_the_peak_signal_to_noise_ratio_of_all_and_of_object_pixels():
    error = torch.where(torch.arange(4) < 2, 0.1, 0.01)  # the left half is the object

    class Wrong:
        def encode_frames(self, frames: Tensor) -> Tensor:
            return torch.zeros(len(frames), 1, 1, 1)

        def decode_frames(self, codes: Tensor) -> Tensor:
            return (0.5 + error).expand(len(codes), 3, 4, 4)

        def decode_large_frames(self, codes: Tensor) -> Tensor:
            return (0.5 + 2 * error).expand(len(codes), 3, 4, 4)

    def scenes(count: int) -> SceneFrames:
        mask = (torch.arange(4) < 2).float().expand(1, count, 4, 4)
        return SceneFrames(torch.full((1, count, 3, 4, 4), 0.5), mask)

    (small, small_object), (large, large_object) = reconstruction_psnr(Wrong(), FrameBatch(scenes(2), scenes(3)))
    assert (small_object, small) == (pytest.approx(20, abs=1e-3), pytest.approx(22.967, abs=1e-3))
    assert (large_object, large) == (pytest.approx(20 - 6.0206, abs=1e-3), pytest.approx(22.967 - 6.0206, abs=1e-3))


def test_training_weighs_object_pixels_and_nudges_latents():
    vae, picture = tiny_vae(), training.batch(FrameSampling(SIZE, batch=2), step=0)
    weighed = training.loss(vae, picture, torch.Generator().manual_seed(0))
    again = training.loss(vae, picture, torch.Generator().manual_seed(0))
    nudged = training.loss(vae, picture, torch.Generator().manual_seed(1))
    everywhere = [SceneFrames(p.frames, torch.ones_like(p.mask)) for p in (picture.coded, picture.large)]
    inside = training.loss(vae, FrameBatch(*everywhere), torch.Generator().manual_seed(0))
    assert torch.equal(weighed, again)
    assert not torch.equal(weighed, nudged)
    assert not torch.equal(weighed, inside)
    codes = vae.encode_frames(picture.coded.frames.flatten(0, 1))
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    first, last = (codes + training.LATENT_NOISE * noise).view(2, 2, *codes.shape[1:]).unbind(1)
    large = [vae.decode_large_frames(code) for code in (first, (first + last) / 2, last)]
    small = [vae.decode_frames(code) for code in (first, last)]
    total = expected_loss(torch.stack(large, 1) - picture.large.frames, picture.large.mask)
    total += training.CODED_WEIGHT * expected_loss(torch.stack(small, 1) - picture.coded.frames, picture.coded.mask)
    torch.testing.assert_close(weighed, total)


def expected_loss(error: Tensor, mask: Tensor) -> Tensor:
    weight = 1 + (training.OBJECT_WEIGHT - 1) * mask
    still = ((error.abs() + 4 * error.square()).mean(2) * weight).sum() / weight.sum()
    moving = ((error[:, 1:] - error[:, :-1]).abs().mean(2) * weight[:, 1:]).sum() / weight[:, 1:].sum()
    return still + training.MOTION_WEIGHT * moving


def test_a_frozen_encoder_keeps_its_latents_while_the_decoder_learns():
    vae, picture = tiny_vae().train(), training.batch(FrameSampling(SIZE, batch=2), step=0)
    vae.encoder.requires_grad_(False)
    before, latents = vae.normalise.running_mean.clone(), vae.eval().encode(picture.coded.frames)
    training.loss(vae.train(), picture, torch.Generator().manual_seed(0)).backward()
    assert torch.equal(vae.normalise.running_mean, before)
    assert torch.equal(vae.eval().encode(picture.coded.frames), latents)
    assert all(p.grad is None for p in vae.encoder.parameters())
    assert all(p.grad is not None for p in vae.decoder.parameters())


def test_training_frames_are_a_function_of_the_step_and_no_scene_comes_twice(monkeypatch):
    frames, seeds = FrameSampling(SIZE, batch=3), list[int]()
    first, again = (training.batch(frames, step) for step in (4, 4))
    assert first.coded.frames.shape == (3, 2, 3, *SIZE)
    assert first.large.frames.shape == (3, 3, 3, 2 * SIZE[0], 2 * SIZE[1])
    assert torch.equal(first.coded.frames, again.coded.frames)
    assert torch.equal(first.large.frames, again.large.frames)
    monkeypatch.setattr(training, "sample_scene", lambda seed: seeds.append(seed) or sample_scene(seed))
    for step in range(5):
        training.batch(frames, step)
    assert len(seeds) == len(set(seeds)) == 15
    assert min(seeds) >= 1_000_000  # below are those it is judged by


def test_training_normalizes_latents_by_their_own_statistics():
    vae = tiny_vae().train()
    codes = vae.encode_frames(training.batch(FrameSampling(SIZE, batch=16), step=0).coded.frames.flatten(0, 1))
    torch.testing.assert_close(codes.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.var((0, 2, 3), correction=0), torch.ones(2), atol=1e-3, rtol=0)
