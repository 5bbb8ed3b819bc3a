"""Floating point operations of an STDiT, counted from its sizes: the same on every device and backend."""

from __future__ import annotations

from dataclasses import dataclass

from pavdm_cli.models.stdit.transformer import STDiTConfig


@dataclass(frozen=True, slots=True)
class CallShape:
    """What the network processes in one call."""

    batch: int
    latents: int
    tokens: int  # of a latent
    text: int
    cached: int = 0  # latents whose keys and values are cached


def tokens_of(config: STDiTConfig, latent: tuple[int, int]) -> int:
    """Patches of a latent of (h, w)."""
    _, height, width = config.patch
    return -(-latent[0] // height) * -(-latent[1] // width)


def forward_flops(config: STDiTConfig, shape: CallShape) -> float:
    """Of one pass, two for each multiplication and addition; text and modulation are computed elsewhere."""
    tokens = shape.batch * shape.latents * shape.tokens
    blocks = config.depth * (_spatial(config, shape) + _temporal(config, shape))
    return 2 * tokens * (blocks + _ends(config, config.out_channels))


def prefill_flops(config: STDiTConfig, shape: CallShape) -> float:
    """Of one pass that stops at the last keys and values."""
    tokens, width = shape.batch * shape.latents * shape.tokens, config.hidden
    blocks = config.depth * (_spatial(config, shape) + _temporal(config, shape))
    return 2 * tokens * (blocks - _temporal(config, shape) + 3 * width**2 + _ends(config, 0))


def _spatial(config: STDiTConfig, shape: CallShape) -> float:
    return _linear(config) + 2 * config.hidden * (shape.tokens + shape.text)


def _temporal(config: STDiTConfig, shape: CallShape) -> float:
    return _linear(config) + 2 * config.hidden * (shape.latents + shape.cached + shape.text)


def _linear(config: STDiTConfig) -> float:
    """Multiplications of a block's layers for a token: qkv and projection, query and projection, two of the MLP."""
    return config.hidden**2 * (6 + 2 * config.mlp_ratio)


def _ends(config: STDiTConfig, out: int) -> float:
    """The same for cutting into patches and putting together again."""
    _, height, width = config.patch
    return height * width * config.hidden * (config.in_channels + out)
