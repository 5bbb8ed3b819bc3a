"""Training continues from weights of fewer words, shorter prompts or fewer latent channels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import POCKET, VAE_CONFIG, randomized
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.models.pocket import checkpoint, text_encoder
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.pocket_world import vocabulary
from pavdm_cli.training.losses import Batch, predict_velocity
from pavdm_cli.training.pocket import initial_weights
from pavdm_cli.training.pocket.initial_weights import load_grown

PROMPTS = ["a red balloon over green hills", "a yellow kite at night, the camera pans left"]
DROPPED = torch.tensor([False, False, True])
MORE = {"aardvark", "lighthouse", "quartz", "zebra"}
WORDS, LENGTH = len(vocabulary.VOCABULARY), vocabulary.LENGTH


def saved(folder: Path) -> Path:
    return checkpoint.save(randomized(Pocket(POCKET)), folder / "denoiser.safetensors", {})


def noisy(channels: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Latents and noise of three windows."""
    return torch.randn(2, 3, 2, channels, 2, 3, generator=torch.Generator().manual_seed(seed)).unbind()


def output(model: Pocket, latents: Tensor, noise: Tensor) -> Tensor:
    """Velocities for two captions and for the null text."""
    batch = Batch(latents, noise, torch.tensor([[300.0, 700.0]] * 3), torch.ones(3, 2))
    with torch.no_grad():
        text = model.encode_prompts([*PROMPTS, PROMPTS[0]], DROPPED)
        return predict_velocity(model.stdit, text, batch, torch.tensor(8.0))


def grow_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four more words, in alphabetical order among the others, and prompts of up to six words more."""
    words = {word: index for index, word in enumerate(sorted({*vocabulary.VOCABULARY, *MORE}), start=1)}
    for module in (vocabulary, checkpoint, initial_weights):
        monkeypatch.setattr(module, "VOCABULARY", words)
        monkeypatch.setattr(module, "LENGTH", LENGTH + 6)


def test_nothing_changes_where_nothing_grows(tmp_path):
    path = saved(tmp_path)
    stored, grown = checkpoint.load_denoiser(path), load_grown(path, VAE_CONFIG)
    assert grown.config == stored.config
    assert all(torch.equal(value, grown.state_dict()[name]) for name, value in stored.state_dict().items())


def test_a_grown_vocabulary_keeps_the_output_of_old_prompts(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = output(checkpoint.load_denoiser(path), *noisy(4))
    grow_vocabulary(monkeypatch)
    assert torch.equal(output(load_grown(path, VAE_CONFIG).eval(), *noisy(4)), before)


def test_new_words_and_positions_have_the_scale_of_old_ones(tmp_path, monkeypatch):
    path = saved(tmp_path)
    stored = checkpoint.load_denoiser(path)
    grow_vocabulary(monkeypatch)
    grown = load_grown(path, VAE_CONFIG)
    words = grown.text.words.weight.detach()
    new = words[[vocabulary.VOCABULARY[word] for word in sorted(MORE)]]
    assert new.std().item() == pytest.approx(stored.text.words.weight.std().item(), rel=0.4)
    assert len({tuple(row.tolist()) for row in words}) == len(words)
    for now, before in (
        (grown.text.places.detach(), stored.text.places),
        (grown.stdit.y_embedder.y_embedding, stored.stdit.y_embedder.y_embedding),
    ):
        assert len(now) == LENGTH + 6
        assert torch.equal(now[:LENGTH], before)
        assert now[LENGTH:].std().item() == pytest.approx(before.std().item(), rel=0.4)


def test_grown_weights_are_saved_with_their_words(tmp_path, monkeypatch):
    path = saved(tmp_path)
    grow_vocabulary(monkeypatch)
    with pytest.raises(
        ModelError,
        match=f"knows {WORDS} words, but this version knows {WORDS + 4}; they differ in aardvark, lighthouse",
    ):
        checkpoint.load_denoiser(path)
    again = checkpoint.save(load_grown(path, VAE_CONFIG), tmp_path / "again.safetensors", {})
    assert checkpoint.load_denoiser(again).config.text.words == WORDS + 5
    assert text_encoder.batch_ids(["a zebra"]).tolist() == [[1, vocabulary.VOCABULARY["zebra"]]]


def test_more_latent_channels_keep_the_output_of_old_ones(tmp_path):
    """Two frames of five channels instead of two."""
    path = saved(tmp_path)
    old, new = noisy(4), noisy(6, seed=6)
    grown = load_grown(path, replace(VAE_CONFIG, channels=5))
    assert grown.config.stdit.in_channels == grown.config.stdit.out_channels == 10
    latents, noise = (
        torch.cat([a.unflatten(2, (2, 2)), b.unflatten(2, (2, 3))], dim=3).flatten(2, 3)
        for a, b in zip(old, new, strict=True)
    )
    velocity = output(grown, latents, noise).unflatten(2, (2, 5))
    before = output(checkpoint.load_denoiser(path), *old).unflatten(2, (2, 2))
    torch.testing.assert_close(velocity[:, :, :, :2], before)
    assert velocity[:, :, :, 2:].abs().max() == 0


def test_added_channels_are_trained(tmp_path):
    grown = load_grown(saved(tmp_path), replace(VAE_CONFIG, channels=3)).requires_grad_()
    rng = torch.Generator().manual_seed(0)
    batch = Batch(*torch.randn(2, 1, 2, 6, 2, 3, generator=rng), torch.full((1, 2), 500.0), torch.ones(1, 2))
    velocity = predict_velocity(grown.stdit, grown.encode_prompts(PROMPTS[:1]), batch, torch.tensor(8.0))
    (velocity - batch.latents).square().mean().backward()
    for name in (initial_weights.INPUT, initial_weights.OUTPUTS[0]):
        gradient = dict(grown.named_parameters())[name].grad
        assert gradient is not None
        rows = gradient.unflatten(0, (4, 2, 3))[:, :, 2] if name in initial_weights.OUTPUTS else gradient[:, 2]
        assert rows.abs().max() > 0


def test_a_vae_of_fewer_channels_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="needs 4 latent channels, but the VAE has 2"):
        load_grown(saved(tmp_path), replace(VAE_CONFIG, channels=1))
