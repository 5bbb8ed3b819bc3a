"""Muon as torch has it, without bfloat16 where that is slow."""

from __future__ import annotations

import pytest
import torch
from support.tiny import POCKET, randomized
from torch import nn

from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.training import optimizer
from pavdm_cli.training.optimizer import Muon, muon_and_adamw, orthogonalize

OPTIONS = {"lr": 0.02, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
SHAPES = [(8, 8), (24, 8), (8, 32)]


def weights(seed: int = 0) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]


def trained(kind: type[torch.optim.Muon], steps: int = 5) -> tuple[list[nn.Parameter], torch.optim.Muon]:
    """Weights after steps with random gradients, the last of them without one for the first weight."""
    parameters = weights()
    steps_of = kind(parameters, **OPTIONS)
    rng = torch.Generator().manual_seed(1)
    for step in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        if step == steps - 1:
            parameters[0].grad = None
        steps_of.step()
    return parameters, steps_of


@pytest.mark.parametrize(("native", "tolerance"), [(True, 1e-6), (False, 3e-2)])
def test_updates_are_those_of_torch(native, tolerance, monkeypatch):
    """In bfloat16 exactly, in float32 up to the rounding of bfloat16."""
    monkeypatch.setattr(optimizer, "has_native_bf16", lambda device: native)
    (own, own_optimizer), (theirs, their_optimizer) = trained(Muon), trained(torch.optim.Muon)
    for start, left, right in zip(weights(), own, theirs, strict=True):
        assert (left - right).norm() <= tolerance * (right - start).norm()
    assert own_optimizer.state_dict()["state"].keys() == their_optimizer.state_dict()["state"].keys()
    for left, right in zip(own, theirs, strict=True):
        torch.testing.assert_close(own_optimizer.state[left], their_optimizer.state[right])


def test_orthogonalized_matrices_have_singular_values_near_one():
    for shape in SHAPES:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        values = torch.linalg.svdvals(orthogonalize(matrix))
        assert orthogonalize(matrix).shape == matrix.shape
        assert 0.3 < values.min() < values.max() < 1.3


def test_the_settings_are_those_that_the_update_assumes():
    (group,) = muon_and_adamw(randomized(Pocket(POCKET)))[1].param_groups
    assert group["nesterov"]
    assert (group["ns_steps"], group["ns_coefficients"], group["eps"]) == (5, (3.4445, -4.775, 2.0315), 1e-7)
    assert group["adjust_lr_fn"] == "match_rms_adamw"
