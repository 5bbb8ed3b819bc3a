"""Floating point operations of a Wan transformer, from its sizes."""

from __future__ import annotations

from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.wan.config import PATCH, TEXT_LENGTH, WanConfig


def step_flops(config: WanConfig, step: StepShape, tokens_per_latent: int) -> float:
    """FLOPs of one call, counting a multiply-add as two, without the text and the modulation.

    Every prompt is padded to 512 tokens.
    """
    tokens, keys = (count * tokens_per_latent for count in (step.window, step.window + step.context))
    linear = config.dim * (6 * config.dim + 2 * config.ffn_dim)  # four of self-attention, two of cross-attention, MLP
    attention = 2 * config.dim * (keys + TEXT_LENGTH)
    patch = PATCH[1] * PATCH[2] * config.dim * (config.in_channels + config.out_channels)
    return 2.0 * step.batch * tokens * (config.layers * (linear + attention) + patch)
