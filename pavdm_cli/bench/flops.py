"""Floating point operations of a step, counted from the sizes of the network: the same on every device and back end."""

from __future__ import annotations

from dataclasses import dataclass

from pavdm_cli.models.stdit.transformer import STDiTConfig


@dataclass(frozen=True, slots=True)
class Shown:
    """What the network is shown in one call."""

    batch: int
    frames: int
    tokens: int  # of a frame
    words: int
    remembered: int = 0  # frames whose keys and values are kept


def tokens_of(config: STDiTConfig, latent: tuple[int, int]) -> int:
    """Patches of a latent of (h, w)."""
    _, height, width = config.patch
    return -(-latent[0] // height) * -(-latent[1] // width)


def forward_tflop(config: STDiTConfig, shown: Shown) -> float:
    """TFLOP of one pass, two for each multiplication and addition; text and modulation tables are made elsewhere."""
    tokens = shown.batch * shown.frames * shown.tokens
    blocks = config.depth * (_spatial(config, shown) + _temporal(config, shown))
    return 2e-12 * tokens * (blocks + _ends(config, config.out_channels))


def remember_tflop(config: STDiTConfig, shown: Shown) -> float:
    """TFLOP of one pass that stops at the last keys and values."""
    tokens, width = shown.batch * shown.frames * shown.tokens, config.hidden
    blocks = config.depth * (_spatial(config, shown) + _temporal(config, shown))
    return 2e-12 * tokens * (blocks - _temporal(config, shown) + 3 * width**2 + _ends(config, 0))


def _spatial(config: STDiTConfig, shown: Shown) -> float:
    return _linear(config) + 2 * config.hidden * (shown.tokens + shown.words)


def _temporal(config: STDiTConfig, shown: Shown) -> float:
    return _linear(config) + 2 * config.hidden * (shown.frames + shown.remembered + shown.words)


def _linear(config: STDiTConfig) -> float:
    """Multiplications of a block's layers for a token: qkv and projection, query and projection, two of the MLP."""
    return config.hidden**2 * (6 + 2 * config.mlp_ratio)


def _ends(config: STDiTConfig, out: int) -> float:
    """The same for cutting into patches and putting together again."""
    _, height, width = config.patch
    return height * width * config.hidden * (config.in_channels + out)
