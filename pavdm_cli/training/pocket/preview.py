"""Short sample videos of fixed prompts during training."""

from __future__ import annotations

import torch
from torch import Tensor

from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_kv_cache
from pavdm_cli.sampling.denoiser import batched_cfg
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, seeded_noise
from pavdm_cli.sampling.schedule import pa
from pavdm_cli.sampling.solver import euler
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.pocket.latent_pool import Clips

PROMPTS = [
    "a red balloon drifting over green hills at sunset",
    "a white kite circling above the sea by day, the camera pans left",
    "a yellow boat bobbing on calm water at night",
    "a blue ball bouncing over golden dunes at dawn, the camera pans right",
    "a purple balloon hovering above tall mountains by day",
    "a green kite drifting over the desert at sunset",
    "a red sailboat gliding on the sea at sunset",
    "a yellow ball circling above mountains at night",
]


@torch.no_grad()
def preview(
    model: Pocket, vae: PocketVAE, diagonal: Diagonal, clips: Clips, chunks: int = 14, guidance: float = 2.5
) -> Tensor:  # (prompts, frames, 3, H, W)
    """A row of frames per prompt, one from every other chunk."""
    schedule = pa(diagonal.steps, diagonal.chunks * diagonal.chunk, diagonal.chunk)
    levels = noise_levels(linear_sigmas(diagonal.steps)).to(next(model.parameters()).device)
    text = model.encode_prompts(PROMPTS * 2, torch.arange(2 * len(PROMPTS)) >= len(PROMPTS))
    modulation = compute_modulation(model.stdit, 1000 * levels.sigmas, clips.fps)
    denoiser = batched_cfg(with_kv_cache(model.stdit, text, modulation, schedule.context), guidance)
    height, width = clips.size
    noise = seeded_noise(7, (len(PROMPTS), vae.config.latent_channels, height // 8, width // 8))
    frames = [vae.decode(latents)[:, :1] for latents in sample(schedule, denoiser, noise, euler(levels), chunks=chunks)]
    return torch.cat(frames[::2], dim=1)
