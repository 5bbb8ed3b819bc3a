"""The autoencoder of single frames, 8x smaller in space: diffusers' AutoencoderKL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pavdm_cli.attention import SDPA_LOCK
from pavdm_cli.runtime.optional_imports import import_library, suppress_logs


@dataclass(frozen=True, slots=True)
class SpatialConfig:
    """Sizes of the spatial autoencoder; the defaults are Open-Sora's (PixArt's copy of the SDXL one)."""

    widths: tuple[int, ...] = (128, 256, 512, 512)  # at 1, 1/2, 1/4 and 1/8 of the size
    layers: int = 2  # residual blocks per level; the decoder has one more
    groups: int = 32
    channels: int = 4  # of a latent


def autoencoder(config: SpatialConfig) -> Any:
    """diffusers' network in these sizes, with attention that takes a lock. Raises: ModelError."""
    build = import_library("diffusers.models.autoencoders.autoencoder_kl").AutoencoderKL
    levels = len(config.widths)
    with suppress_logs():
        network = build(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            norm_num_groups=config.groups,
            latent_channels=config.channels,
        )
    for part in network.modules():
        if hasattr(part, "set_processor"):
            part.set_processor(LockedAttention(part.processor))
    return network


@dataclass(frozen=True, slots=True)
class LockedAttention:
    """A diffusers attention processor that waits while another thread restricts torch's attention kernels.

    diffusers inspects the parameters of `__call__`, and logs a warning for every argument that is missing there.
    """

    processor: Any

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Any:
        with SDPA_LOCK:
            return self.processor(attention, hidden_states, encoder_hidden_states, attention_mask, temb)


def moments(network: Any, frames: Tensor) -> Tensor:
    """Mean, then log variance: (N, 3, H, W), -1 to 1, to (N, 2 * channels, H/8, W/8)."""
    out: Tensor = network.encode(frames, return_dict=False)[0].parameters
    return out


def decode(network: Any, z: Tensor) -> Tensor:
    """Latents to frames: (N, channels, h, w) -> (N, 3, 8h, 8w)."""
    out: Tensor = network.decode(z, return_dict=False)[0]
    return out
