"""Sizes of a Wan transformer, as its checkpoint has them."""

from __future__ import annotations

from dataclasses import dataclass

PATCH = (1, 2, 2)
TEXT_LENGTH = 512  # rows that every prompt is padded to


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Sizes of the transformer; the fps embedding exists in some checkpoints only."""

    dim: int
    heads: int
    layers: int
    ffn_dim: int
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    eps: float = 1e-6
    fps_embedding: bool = False

    def __post_init__(self) -> None:
        assert self.dim % (2 * self.heads) == 0

    @property
    def head_width(self) -> int:
        """Channels of an attention head."""
        return self.dim // self.heads
