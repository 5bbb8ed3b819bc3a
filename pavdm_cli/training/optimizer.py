"""Optimizers for training from scratch and for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

OptimizerFactory = Callable[[nn.Module], list[torch.optim.Optimizer]]


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For training from scratch: Muon for the matrices of transformer blocks, AdamW for all other weights."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in parameters if p.dim() == 2 and "blocks." in name and "table" not in name]
    in_muon = {id(p) for p in matrices}
    others = [p for _, p in parameters if id(p) not in in_muon]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=1e-4)]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For fine-tuning: AdamW with Open-Sora's settings and without weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.AdamW(parameters, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.0)]
