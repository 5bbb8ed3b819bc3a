"""Which optimiser moves which weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Build = Callable[[nn.Module], list[torch.optim.Optimizer]]


def optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For weights trained from nothing: Muon for the matrices of transformer blocks, AdamW for all else."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.dim() == 2 and "blocks." in name and "table" not in name]
    known = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in known]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-4)]
    if matrices:
        found.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return found


def gentle(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For published weights: AdamW as Open-Sora was trained with it, and nothing pulled towards zero."""
    given = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.AdamW(given, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.0)]
