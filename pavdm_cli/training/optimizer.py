"""Optimizers for training from scratch and for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pavdm_cli.models.devices import has_native_bf16

OptimizerFactory = Callable[[nn.Module], list[torch.optim.Optimizer]]


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For training from scratch: Muon for the matrices of transformer blocks, AdamW for all other weights."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in parameters if p.dim() == 2 and "blocks." in name and "table" not in name]
    in_muon = {id(p) for p in matrices}
    others = [p for _, p in parameters if id(p) not in in_muon]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=1e-4, foreach=True)
    ]
    if matrices:
        optimizers.append(Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return optimizers


class Muon(torch.optim.Muon):
    """torch's Muon; on CPUs without native bfloat16 it orthogonalizes in float32, which is faster there."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; the state is that of torch's."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for weight, update in zip(weights, nesterov, strict=True):
                scale = 0.2 * max(weight.shape) ** 0.5  # an update's RMS is then that of AdamW's
                weight.add_(orthogonalize(update), alpha=-group["lr"] * scale)


def orthogonalize(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The matrix with all singular values near 1, by Newton-Schulz iterations (Jordan et al., Muon, 2024)."""
    narrow = matrix.bfloat16() if has_native_bf16(matrix.device) else matrix
    x = narrow.T if matrix.shape[0] > matrix.shape[1] else narrow
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """For fine-tuning: AdamW with Open-Sora's settings and without weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.AdamW(parameters, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.0)]
