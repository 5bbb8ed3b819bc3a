"""The bundled weights store fingerprints of the world, vocabulary and latents that they were trained on."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import POCKET

from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.pocket_world import palette
from pavdm_cli.pocket_world.vocabulary import VOCABULARY
from pavdm_cli.training.pocket import fingerprint

HINT = "train it again (CONTRIBUTING, 'Train the pocket model')"


@pytest.fixture(scope="module")
def current_world() -> str:
    return fingerprint.world()


@pytest.mark.parametrize("weights", [POCKET.folder / VAE_FILE, POCKET.folder / DENOISER_FILE], ids=["vae", "denoiser"])
def test_the_world_is_the_one_the_weights_were_trained_on(weights, current_world):
    assert fingerprint.same_world(checkpoint.training_metadata(weights)["world"], current_world), (
        f"the rendered world has changed: {HINT}"
    )


def test_the_vocabulary_is_the_one_the_denoiser_was_trained_with():
    assert checkpoint.training_metadata(POCKET.folder / DENOISER_FILE)["vocabulary"] == fingerprint.vocabulary(), (
        f"the vocabulary has changed: {HINT}"
    )


def test_the_denoiser_was_trained_on_latents_of_the_shipped_vae():
    vae = checkpoint.load_vae(POCKET.folder / VAE_FILE)
    assert checkpoint.training_metadata(POCKET.folder / DENOISER_FILE)["latents"] == fingerprint.latents(vae), (
        f"the VAE has changed: {HINT}"
    )


def test_a_changed_color_or_shape_is_another_world(current_world, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(palette.SKY, "dawn", ((0.46, 0.52, 0.84), (0.99, 0.82, 0.78)))
        assert not fingerprint.same_world(current_world, fingerprint.world())
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "sample_scene", lambda seed: replace(scene(seed), phase=0.5))
        assert not fingerprint.same_world(current_world, fingerprint.world())
    assert fingerprint.same_world(current_world, fingerprint.world())


scene = fingerprint.sample_scene


def test_rounding_on_another_processor_is_the_same_world(current_world):
    pixels = np.frombuffer(b64decode(current_world), np.uint8).copy()
    pixels[::7] ^= 1
    assert fingerprint.same_world(current_world, b64encode(pixels.tobytes()).decode())
    pixels[3] += 3 if pixels[3] < 200 else -3
    assert not fingerprint.same_world(current_world, b64encode(pixels.tobytes()).decode())
    assert not fingerprint.same_world(current_world, current_world[: len(current_world) // 2])


def test_a_word_more_or_another_order_is_another_vocabulary():
    words = list(VOCABULARY)
    more = VOCABULARY | {"lighthouse": len(VOCABULARY) + 1}
    swapped = VOCABULARY | {words[0]: VOCABULARY[words[1]], words[1]: VOCABULARY[words[0]]}
    assert len({fingerprint.vocabulary(numbers) for numbers in (VOCABULARY, more, swapped)}) == 3
    assert fingerprint.vocabulary(dict(reversed(VOCABULARY.items()))) == fingerprint.vocabulary()


def test_a_decoder_may_be_trained_alone_and_an_encoder_may_not():
    def changed(part: str) -> str:
        vae = checkpoint.load_vae(POCKET.folder / VAE_FILE)
        with torch.no_grad():
            next(weight for name, weight in vae.named_parameters() if name.startswith(part)).mul_(1.01)
        return fingerprint.latents(vae)

    original = fingerprint.latents(checkpoint.load_vae(POCKET.folder / VAE_FILE))
    assert changed("decoder.") == original != changed("encoder.")
