"""What is faint counts more in the loss of pocket's training, by place and caption alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pavdm_cli.pocket_world.world import sample_scene
from pavdm_cli.training.losses import Batch, velocity_loss
from pavdm_cli.training.pocket.loss_weights import ROWS, error_weights


def test_errors_are_weighted():
    clean, noise = torch.zeros(2, 2, 5, 3, 8, 2).unbind(0)
    batch = Batch(clean, noise, torch.zeros(2, 5), torch.ones(2, 5))
    scenes = [
        replace(sample_scene(0), time=time, camera=camera) for time, camera in (("night", "left"), ("day", "still"))
    ]
    weighted, dropped = (error_weights(scenes, torch.tensor([gone, gone]), 8) for gone in (False, True))
    error = torch.arange(8.0).view(8, 1)
    rows = torch.tensor(ROWS)
    want = (rows * torch.arange(8.0).square()).mean()
    torch.testing.assert_close(velocity_loss(clean + error, batch, weights=weighted), want * torch.tensor([2.16, 0.36]))
    torch.testing.assert_close(velocity_loss(clean + error, batch, weights=dropped), want * torch.ones(2))
    assert rows.mean() == pytest.approx(1, abs=0.01)
    assert error_weights(scenes, torch.tensor([True, True]), 4)[0, 0, 0, :, 0].tolist() == pytest.approx(
        [1.06, 0.52, 0.52, 1.64]
    )
    many = [sample_scene(seed) for seed in range(500)]
    assert error_weights(many, torch.zeros(500, dtype=torch.bool), 8).mean() == pytest.approx(1, abs=0.08)
