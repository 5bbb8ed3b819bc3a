"""The embedded model at a size that trains in milliseconds, every weight random."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.pocket.loaded import LoadedPocket, PocketTextEncoder
from pavdm_cli.models.pocket.model import PocketModel
from pavdm_cli.models.pocket.text_encoder import TextConfig
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.stdit.transformer import STDiTConfig
from pavdm_cli.pocket_world.vocabulary import LENGTH

VAE_CONFIG = PocketVAEConfig(channels=2, widths=(8, 8, 16), decoder_blocks=1)
STDIT = STDiTConfig(hidden=32, depth=2, heads=2, in_channels=4, out_channels=4, text_width=16, text_length=LENGTH)
POCKET = PocketConfig(TextConfig(width=16, layers=1, heads=2), STDIT)
SIZE = (16, 24)  # pixels, height and width
M = TypeVar("M", bound=nn.Module)


def randomized(model: M, seed: int = 3) -> M:
    """Every floating weight and buffer random, so that nothing at zero hides a mistake; variances positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        if weight.is_floating_point():
            weight.normal_(std=max(weight.shape[-1:] or (1,)) ** -0.5, generator=generator)
        else:
            weight.fill_(7)
        if name.endswith("running_var"):
            weight.abs_().add_(0.5)
    return model


def tiny_vae() -> PocketVAE:
    """Ready to be used, not trained."""
    return randomized(PocketVAE(VAE_CONFIG)).eval()


def tiny_pocket() -> Pocket:
    """Ready to be used, not trained."""
    return randomized(Pocket(POCKET)).eval()


class TinyModel(PocketModel):
    """Pocket with the latents of the tiny one."""

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout:
        """As pocket's, of four channels."""
        return LatentLayout((4, size[0] // 8, size[1] // 8), first=2, rest=2)


def tiny_runner(spec: ModelSpec, pocket: Pocket) -> ModelRunner:
    """The tiny model on the CPU, ready for a prompt."""
    loaded = LoadedPocket(pocket.stdit, tiny_vae(), scales_positions=False, num_null_tokens=1)
    return ModelRunner(spec, TinyModel(spec), loaded, PocketTextEncoder(pocket.text), torch.device("cpu"), "digest")
