"""UniPC of order 2 with the bh2 coefficients, which predicts the clean latent: one linear update of four tensors.

z' = a z + b v + c M + d P, where v is clean - noise, and M and P are the clean predictions of the last two steps. The
corrector of a step is applied together with its predictor: it needs no tensor of its own. Every latent has its own
level and its own age, the number of steps behind it, since a chunk may enter below the top.
Source: Zhao et al. 2023, with alpha = 1 - sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.solver import History

MAX_AGE = 2  # number of earlier predictions used
Z, V, LAST, PREVIOUS = torch.eye(4, dtype=torch.float64).unbind(0)  # an update is a vector in this basis


@dataclass(frozen=True, slots=True)
class UniPC:
    """Implements `Solver`; its history is the last clean prediction M, the one before it P, and each latent's age."""

    levels: NoiseLevels
    coefficients: Tensor  # (steps + 3, 3, 4), by level and age: a, b, c, d

    def history(self, latents: Tensor, /) -> History:
        """Zeros: entering latents have no earlier predictions."""
        age = torch.zeros(latents.shape[:2], dtype=torch.int32, device=latents.device)
        return torch.zeros_like(latents), torch.zeros_like(latents), age

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        """See `Solver.step`."""
        last, previous, age = history
        rows = self.coefficients[levels.long(), age.long()]  # (B, T, 4)
        a, b, c, d = rows[..., None, None, None].unbind(-4)
        clean = torch.addcmul(window, self.levels.sigmas[levels.long()][..., None, None, None], velocity)
        new_window = a * window + b * velocity + c * last + d * previous
        is_noisy = (levels > 0) & (levels <= self.levels.steps)
        return new_window, (clean, last, torch.where(is_noisy, (age + 1).clamp(max=MAX_AGE), age))


def unipc(levels: NoiseLevels) -> UniPC:
    """The UniPC solver for these levels."""
    if levels.sigmas.is_meta:  # meta device: shapes only
        return UniPC(levels, levels.sigmas.new_empty(levels.steps + 3, MAX_AGE + 1, 4))
    coefficients = unipc_coefficients(levels.sigmas[: levels.steps + 1].double().cpu())
    identity = Z.expand(2, MAX_AGE + 1, 4)  # of `unstarted_level` and `context_level`
    return UniPC(levels, torch.cat([coefficients, identity]).to(levels.sigmas))


def unipc_coefficients(sigmas: Tensor) -> Tensor:  # (steps + 1,) float64, from clean to noise -> (steps + 1, 3, 4)
    """Coefficients by level and age; unreachable ages repeat the highest reachable one."""
    steps = len(sigmas) - 1
    rows = [Z.expand(MAX_AGE + 1, 4)]
    rows += [
        torch.stack([_update(sigmas, level, min(age, steps - level)) for age in range(MAX_AGE + 1)])
        for level in range(1, steps + 1)
    ]
    return torch.stack(rows)


def _update(sigmas: Tensor, level: int, age: int) -> Tensor:  # -> (4,)
    """The corrector of the previous step, if any, followed by the predictor."""
    clean = Z + sigmas[level] * V
    return _predict(sigmas, level, age, _correct(sigmas, level, age, clean), clean)


def _predict(sigmas: Tensor, level: int, age: int, z: Tensor, clean: Tensor) -> Tensor:
    """One step down from z; of order 1 for the first and the last step, else 2."""
    sigma, next_sigma = sigmas[level], sigmas[level - 1]
    step = _log_snr(next_sigma) - _log_snr(sigma)
    factor = (1 - next_sigma) * torch.expm1(-step)
    out = next_sigma / sigma * z - factor * clean
    if age and level > 1:
        ratio = (_log_snr(sigmas[level + 1]) - _log_snr(sigma)) / step
        out = out - factor * 0.5 * (LAST - clean) / ratio
    return out


def _correct(sigmas: Tensor, level: int, age: int, clean: Tensor) -> Tensor:
    """The corrected result of the previous step, using the clean prediction at this level.

    Written relative to that step's predictor result, so shared terms cancel.
    """
    if not age:
        return Z
    step = _log_snr(sigmas[level]) - _log_snr(sigmas[level + 1])
    factor = (1 - sigmas[level]) * torch.expm1(-step)
    if age == 1:
        return Z - factor * 0.5 * (clean - LAST)
    ratio = (_log_snr(sigmas[level + 2]) - _log_snr(sigmas[level + 1])) / step
    slope, (earlier, later) = (PREVIOUS - LAST) / ratio, _weights(step, ratio)
    return Z + factor * (0.5 - earlier) * slope - factor * later * (clean - LAST)


def _weights(step: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the differences to the prediction before the last and to the current one: bh2 of order 2."""
    base = torch.expm1(-step)
    first = base / -step - 1
    second = first / -step - 0.5
    total, moment = (
        first / base,
        2 * second / base,
    )  # constraints on the weights: their sum, and ratio * earlier + later
    earlier = (moment - total) / (ratio - 1)
    return earlier, total - earlier


def _log_snr(sigma: Tensor) -> Tensor:
    """lambda = ln(alpha / sigma)."""
    return torch.log1p(-sigma) - torch.log(sigma)
