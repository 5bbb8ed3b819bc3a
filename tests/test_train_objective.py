"""Additional loss weight where the object is."""

from __future__ import annotations

import torch
from support.tiny_training import POOL, denoiser_task

from pavdm_cli.training.pocket.latent_pool import Pool
from pavdm_cli.training.pocket.loss_weights import object_weights
from pavdm_cli.training.pocket.tasks import DenoiserTask


def test_without_an_object_weight_the_mask_changes_nothing():
    plain = denoiser_task()
    unmasked = denoiser_task()
    object.__setattr__(unmasked, "pool", Pool(POOL.latents))
    for step in range(3):
        assert torch.equal(plain.loss(step), unmasked.loss(step))


def test_errors_weigh_more_where_the_object_is(monkeypatch):
    errors = torch.rand(2, 3, 4, 2, 3)
    mask = torch.rand(2, 3, 2, 3)
    weights = object_weights(mask, 3.0)
    torch.testing.assert_close(errors * weights, errors + 3 * errors * mask[:, :, None])
    losses = [denoiser_task(object_weight=weight).loss(1) for weight in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-3, atol=0)  # linear in the weight
    assert losses[1] > losses[0]
    metrics = [DenoiserTask.validate(denoiser_task(object_weight=weight)) for weight in (0.0, 2.0)]
    assert metrics[0] == metrics[1]
