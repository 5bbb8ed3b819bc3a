"""Training batches: a function of the step alone, cropped from clips that are rendered and encoded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.tiny import SIZE, randomized, tiny_vae
from torch import Tensor

from pavdm_cli.errors import OutputError
from pavdm_cli.pocket_world.vocabulary import COLOR_PHRASES, VOCABULARY, split
from pavdm_cli.training.batches import METHODS, BatchConfig, sample_batch
from pavdm_cli.training.levels import POCKET_STAGES, Diagonal
from pavdm_cli.training.losses import Batch
from pavdm_cli.training.pocket import latent_pool as pool_module
from pavdm_cli.training.pocket.latent_pool import Clips, Pool, load_or_encode, object_mask

DIAGONAL = Diagonal(24, 6, 2)
CLIPS = Clips(count=12, latents=20)
# Every latent holds its own number: clip * 100 + index, exact in float16.
POOL = (torch.arange(12)[:, None] * 100 + torch.arange(20))[..., None, None, None].expand(-1, -1, 2, 1, 1).half()
STEPS = 300


def draw(method: str, step: int, windows: int = 4, augmentation: float = 0.0) -> tuple[Batch, list[str], Tensor]:
    return sample_batch(
        BatchConfig(method, DIAGONAL, windows, noise_augmentation=augmentation, stages=POCKET_STAGES), CLIPS, POOL, step
    )[:3]


def test_noise_augmentation_perturbs_half_of_the_contexts():
    strengths = []
    for step in range(STEPS):
        plain, noised = (draw("pa", step, augmentation=std)[0] for std in (0.0, 0.15))
        assert torch.equal(noised.latents[:, noised.context :], plain.latents[:, noised.context :])
        if noised.context:
            strengths += (noised.latents - plain.latents)[:, : noised.context].flatten(1).std(dim=1).tolist()
    augmented = [s for s in strengths if s > 0]
    assert 0.4 < len(augmented) / len(strengths) < 0.6
    assert 0.1 < max(augmented) < 0.4  # estimated from four numbers each


@pytest.mark.parametrize("method", ["base", "rw"])
def test_noise_augmentation_needs_context(method):
    assert torch.equal(draw(method, 3)[0].latents, draw(method, 3, augmentation=0.15)[0].latents)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_a_function_of_the_step_alone(method):
    state = torch.get_rng_state()
    first, captions, dropped = draw(method, 7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)  # another global state
    again, same_captions, same_dropped = draw(method, 7)
    for name in ("latents", "noise", "timesteps", "loss_mask"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert (captions, dropped.tolist(), first.context) == (same_captions, same_dropped.tolist(), again.context)
    assert not torch.equal(first.noise[:, :1], draw(method, 8)[0].noise[:, :1])


def test_batches_are_those_that_pocket_was_trained_on():
    batch, captions, dropped = draw("pa", 8)
    assert captions[0] == "above the city at dusk, a violet ball, panning left"
    assert captions[3] == (
        "over meadows at dusk in falling snow, a bright blue songbird floating, the camera pans right"
    )
    assert dropped.tolist() == [False, True, False, False]
    assert batch.latents[:, 0, 0, 0, 0].tolist() == [101, 903, 800, 1003]


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_random_crops_with_their_clips_caption(method):
    starts = set()
    for step in range(STEPS):
        batch, captions, _ = draw(method, step)
        numbers = batch.latents[:, :, 0, 0, 0].long()  # (B, T)
        assert torch.equal(numbers, numbers[:, :1] + torch.arange(numbers.shape[1]))
        starts.update((numbers[:, 0] % 100).tolist())
        for clip, caption in zip((numbers[:, 0] // 100).tolist(), captions, strict=True):
            assert set(split(caption)) <= VOCABULARY.keys()
            assert any(phrase in caption for phrase in COLOR_PHRASES[CLIPS.scene(clip).color])
    assert {0, 6} <= starts  # the longest window is 14 of 20


def test_context_is_clean_and_has_no_loss():
    seen = set()
    for step in range(STEPS):
        batch = draw("pa", step)[0]
        seen.add(batch.context)
        assert batch.context in (0, 2)
        assert torch.equal(batch.loss_mask[:, : batch.context], torch.zeros(4, batch.context))
        assert torch.equal(batch.timesteps[:, : batch.context], torch.zeros(4, batch.context))
        noisy = slice(batch.context, -2 if rejoins(batch) else None)
        assert torch.equal(batch.loss_mask[:, noisy], torch.ones_like(batch.loss_mask[:, noisy]))
        assert (batch.timesteps[:, noisy].diff(dim=1) >= 0).all()
    assert seen == {0, 2}


def rejoins(batch: Batch) -> bool:
    """Whether the window ends with a clean chunk that the noisy ones lead up to."""
    return bool((batch.timesteps[:, -2:] == 0).all() and (batch.loss_mask[:, -2:] == 0).all())


def test_one_window_in_seven_rejoins_a_clean_chunk():
    batches = [draw("pa", step)[0] for step in range(1000)]
    rejoining = [batch for batch in batches if rejoins(batch)]
    assert len(rejoining) / len(batches) == pytest.approx(0.14, abs=0.03)
    assert all(batch.context == 2 and 6 <= batch.timesteps.shape[1] <= 14 for batch in rejoining)
    for batch in rejoining:
        assert (batch.timesteps[:, 2:-2] > 0).any(dim=1).all()
        numbers = batch.latents[:, 2:, 0, 0, 0].long()
        assert torch.equal(numbers, numbers[:, :1] + torch.arange(numbers.shape[1]))  # the clip's own next chunk
    assert not any(
        rejoins(sample_batch(BatchConfig("pa", DIAGONAL, 4), CLIPS, POOL, step).batch) for step in range(300)
    )


def test_samples_share_a_stage_and_have_their_own_offset():
    batches = (draw("pa", step)[0] for step in range(50))
    for noisy in (batch.timesteps[:, batch.context :] for batch in batches if batch.timesteps.shape[1] > 4):
        inner = noisy[:, (noisy > 0).all(0) & (noisy < 999).all(0)]
        assert len(set(inner[:, 0].tolist())) == 4
        assert (inner - inner[:, :1] - (inner - inner[:, :1])[0]).abs().max() < 1e-3


def test_the_loss_mask_of_base_and_rw_batches():
    clean = 0
    for step in range(STEPS):
        base, rw = draw("base", step)[0], draw("rw", step)[0]
        assert torch.equal(base.loss_mask, (base.timesteps > 0).float())
        clean += int((base.timesteps == 0).any(1).sum())
        assert torch.equal(rw.loss_mask, torch.ones(4, 14))
        assert torch.equal(rw.timesteps, rw.timesteps[:, :1].expand(-1, 14))
        assert base.context == rw.context == 0
    assert clean / (4 * STEPS) == pytest.approx(0.5, abs=0.05)


def test_one_caption_in_ten_is_dropped():
    dropped = torch.cat([draw("pa", step, windows=16)[2] for step in range(STEPS)])
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.015)


TINY = Clips(count=3, latents=2, size=SIZE)


def test_clips_are_rendered_once_and_cached(tmp_path):
    encoded_counts: list[int] = []
    first = load_or_encode(tmp_path / "clips.safetensors", TINY, tiny_vae(), encoded_counts.append)
    again = load_or_encode(tmp_path / "clips.safetensors", TINY, tiny_vae(), encoded_counts.append, needs_mask=True)
    fewer = load_or_encode(tmp_path / "clips.safetensors", replace(TINY, count=2), tiny_vae(), encoded_counts.append)
    assert encoded_counts == [3]
    assert first.latents.shape == (3, 2, 4, 2, 3)
    assert first.object_mask.shape == (3, 2, 2, 3)
    assert {value.dtype for value in (first.latents, first.object_mask)} == {torch.float16}
    assert equal(first, again)
    assert equal(first.first(2), fewer)


def equal(left: Pool, right: Pool) -> bool:
    """Whether latents and masks are the same."""
    assert left.object_mask is not None
    assert right.object_mask is not None
    return torch.equal(left.latents, right.latents) and torch.equal(left.object_mask, right.object_mask)


def test_more_clips_start_with_the_same_ones(tmp_path):
    few = load_or_encode(tmp_path / "clips.safetensors", TINY, tiny_vae(), lambda n: None)
    more = load_or_encode(tmp_path / "clips.safetensors", replace(TINY, count=20), tiny_vae(), lambda n: None)
    assert (len(few.latents), len(more.latents), len(more.object_mask)) == (3, 20, 20)
    assert equal(more.first(3), few)


@pytest.mark.parametrize(
    "change", [{"detail": 0.9}, {"fps": 4.0}, {"latents": 3}, {"first_seed": 5}, {"size": (24, 24)}]
)
def test_clips_of_other_settings_are_rendered_again(change, tmp_path):
    path, encoded_counts = tmp_path / "clips.safetensors", list[int]()
    load_or_encode(path, TINY, tiny_vae(), lambda n: None)
    changed = load_or_encode(path, replace(TINY, **change), tiny_vae(), encoded_counts.append)
    assert encoded_counts == [3]
    assert equal(changed, load_or_encode(tmp_path / "other", replace(TINY, **change), tiny_vae(), lambda n: None))


def test_latents_of_another_vae_are_encoded_again(tmp_path):
    encoded_counts: list[int] = []
    load_or_encode(tmp_path / "clips.safetensors", TINY, tiny_vae(), encoded_counts.append)
    load_or_encode(tmp_path / "clips.safetensors", TINY, randomized(tiny_vae(), seed=8), encoded_counts.append)
    assert encoded_counts == [3, 3]


def test_a_truncated_cache_is_rendered_again(tmp_path):
    path, encoded_counts = tmp_path / "clips.safetensors", list[int]()
    first = load_or_encode(path, TINY, tiny_vae(), encoded_counts.append)
    path.write_bytes(path.read_bytes()[:-7])
    assert equal(load_or_encode(path, TINY, tiny_vae(), encoded_counts.append), first)
    assert encoded_counts == [3, 3]


def test_a_full_disk_leaves_no_partial_file(tmp_path, monkeypatch):
    def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pool_module, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*clips\.safetensors.*No space left"):
        load_or_encode(tmp_path / "clips.safetensors", TINY, tiny_vae(), lambda n: None)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_without_settings_is_trusted(tmp_path):
    path, encoded_counts = tmp_path / "clips.safetensors", list[int]()
    save_file({"latents": torch.zeros(3, 2, 4, 2, 3).half()}, path)
    assert load_or_encode(path, TINY, tiny_vae(), encoded_counts.append).latents.abs().max() == 0
    assert encoded_counts == []
    assert load_file(path).keys() == {"latents"}


def test_a_cache_without_object_masks_is_rendered_again_where_they_are_needed(tmp_path):
    path, encoded_counts = tmp_path / "clips.safetensors", list[int]()
    pool = load_or_encode(path, TINY, tiny_vae(), lambda n: None)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    save_file({"latents": load_file(path)["latents"]}, path, header)
    assert load_or_encode(path, TINY, tiny_vae(), encoded_counts.append).object_mask is None
    assert encoded_counts == []
    assert equal(load_or_encode(path, TINY, tiny_vae(), encoded_counts.append, needs_mask=True), pool)
    assert encoded_counts == [3]


def test_the_object_mask_covers_the_object_and_one_latent_pixel_around_it():
    """The share of the pixels of both frames, and its largest value nearby."""
    mask = torch.zeros(1, 4, 40, 48)
    mask[0, 0, 16:24, 16:24] = 1
    mask[0, 3, 0:4, 0:8] = 1
    first, second = object_mask(mask, 2)[0]
    expected = torch.zeros(2, 5, 6)
    expected[0, 1:4, 1:4] = 0.5
    expected[1, 0:2, 0:2] = 0.25
    assert torch.equal(torch.stack([first, second]), expected)


@pytest.mark.parametrize("method", ["base", "rw"])
@pytest.mark.parametrize("latents", [1, 3, 20])
def test_windows_have_the_length_that_was_set(method, latents):
    config, starts = BatchConfig(method, DIAGONAL, 4, latents=latents), set()
    for step in range(60):
        batch = sample_batch(config, CLIPS, POOL, step).batch
        assert batch.latents.shape[:2] == batch.timesteps.shape == (4, latents)
        assert (batch.timesteps > 0).any(dim=1).all()
        starts.update((batch.latents[:, 0, 0, 0, 0].long() % 100).tolist())
    assert {0, 20 - latents} <= starts


def test_every_step_of_filled_batches_has_about_as_many_latents():
    for method, latents in (("pa", 0), ("base", 0), ("base", 1), ("base", 5), ("base", 20)):
        config = BatchConfig(method, DIAGONAL, 16, stages=POCKET_STAGES, fill_batches=True, latents=latents)
        for step in range(60):
            batch, captions, dropped, crop = sample_batch(config, CLIPS, POOL, step)
            samples, length = batch.timesteps.shape
            assert 16 * 14 - length < samples * length <= 16 * 14
            assert len(captions) == len(dropped) == len(crop.clips) == len(crop.starts) == samples
            assert batch.latents.shape[:2] == (samples, length)


@pytest.mark.parametrize("method", METHODS)
def test_full_windows_are_the_same_in_filled_batches(method):
    configs = [BatchConfig(method, DIAGONAL, 4, stages=POCKET_STAGES, fill_batches=filled) for filled in (False, True)]
    for step in range(20):
        plain, filled = (sample_batch(config, CLIPS, POOL, step) for config in configs)
        assert filled.crop.clips[:4] == plain.crop.clips
        if plain.batch.timesteps.shape[1] == 14:
            assert torch.equal(filled.batch.latents, plain.batch.latents)
            assert torch.equal(filled.batch.timesteps, plain.batch.timesteps)
            assert filled.prompts == plain.prompts
