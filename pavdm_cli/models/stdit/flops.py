"""Floating point operations of an STDiT, from its sizes: the same on every device and backend."""

from __future__ import annotations

from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.stdit.transformer import STDiTConfig


def tokens_per_latent(config: STDiTConfig, latent: tuple[int, int]) -> int:
    """Number of patches of a latent of (h, w)."""
    _, height, width = config.patch
    return -(-latent[0] // height) * -(-latent[1] // width)


def step_flops(config: STDiTConfig, step: StepShape, tokens: int) -> float:
    """FLOPs of one call, counting a multiply-add as two. Excludes the text and modulation.

    tokens: number per latent. A prefill ends with the last keys and values.
    """
    # Linear layers of a block: qkv, projection, query and projection of the cross-attention, two of the MLP.
    linear = config.hidden**2 * (6 + 2 * config.mlp_ratio)
    spatial = linear + 2 * config.hidden * (tokens + step.text)
    temporal = linear + 2 * config.hidden * (step.window + step.context + step.text)
    blocks = config.depth * (spatial + temporal)
    if step.prefill:
        blocks += 3 * config.hidden**2 - temporal
    patch = config.patch[1] * config.patch[2] * config.hidden  # patch embedding and unpatchify
    patches = patch * (config.in_channels + (0 if step.prefill else config.out_channels))
    return 2 * step.batch * step.window * tokens * (blocks + patches)
