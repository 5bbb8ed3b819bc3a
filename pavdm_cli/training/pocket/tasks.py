"""The training tasks of pocket: its VAE and its denoiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.training.batches import BatchConfig, Crop, sample_batch
from pavdm_cli.training.losses import predict_velocity, velocity_loss
from pavdm_cli.training.pocket import fingerprint
from pavdm_cli.training.pocket import vae as vae_training
from pavdm_cli.training.pocket.distillation import Teacher
from pavdm_cli.training.pocket.latent_pool import Clips, Pool
from pavdm_cli.training.pocket.loss_weights import error_weights, object_weights
from pavdm_cli.training.pocket.preview import preview
from pavdm_cli.training.pocket.vae import FrameBatch, FrameSampling, reconstruction_psnr
from pavdm_cli.video.contact_sheet import write_contact_sheet

HELD_OUT_SEED = 3_000_000


@dataclass(frozen=True, slots=True)
class VAETask:
    """Trains the VAE to reconstruct frames."""

    model: PocketVAE
    frames: FrameSampling
    metadata: dict[str, object]
    precision: str = "fp32"
    name: str = "VAE"

    def loss(self, step: int) -> Tensor:
        """The loss on newly rendered frames."""
        device = _device(self.model)
        with _autocast(device, self.precision):
            frames = vae_training.batch(self.frames, step, device)
            return vae_training.loss(self.model, frames, torch.Generator().manual_seed(step))

    def validate(self) -> dict[str, float]:
        """PSNR on held-out scenes in both sizes, over all pixels and over the object's."""
        coded, large = reconstruction_psnr(self.model, self._held_out())
        return {"psnr": large[0], "object_psnr": large[1], "small_psnr": coded[0], "small_object_psnr": coded[1]}

    def write_sheet(self, path: Path) -> None:
        """Held-out frames above their reconstructions."""
        frames = self._held_out(12)
        with torch.no_grad():
            codes = self.model.encode_frames(frames.coded.frames.flatten(0, 1))
            decoded = vae_training.decode(self.model, codes)[1].clamp(0, 1)
        write_contact_sheet(path, to_bytes(torch.stack([frames.large.frames[:, 0], decoded[:, 0]])))

    def export(self, folder: Path) -> Path:
        """Write the VAE's file."""
        trained_on = {"world": fingerprint.world(self.frames.detail)}
        return checkpoint.save(self.model, folder / VAE_FILE, self.metadata | trained_on | self.validate())

    def _held_out(self, count: int = 64) -> FrameBatch:
        seconds = torch.rand(count, 1, generator=torch.Generator().manual_seed(1)) * 60
        return vae_training.render_pairs(range(count), seconds, self.frames, _device(self.model))


@dataclass(frozen=True, slots=True)
class DenoiserTask:
    """Trains the denoiser on windows at the noise levels of a method."""

    model: Pocket
    vae: PocketVAE
    config: BatchConfig
    clips: Clips
    pool: Pool
    held_out: Pool  # of other clips
    metadata: dict[str, object]
    teacher: Teacher | None = None  # whose guided velocity is the target, instead of that of the clips
    object_weight: float = 0.0  # additional weight of errors where the object is
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """Includes the method and the distilled guidance, which a checkpoint must match."""
        guidance = f", guidance of {self.teacher.guidance:g}" if self.teacher else ""
        return f"denoiser by method {self.config.method}{guidance}"

    def loss(self, step: int) -> Tensor:
        """The loss of a step's windows, with weighted errors."""
        return self._loss(self.config, self.clips, self.pool, step, weighted=True)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean unweighted loss on held-out clips, with the same windows and noise every time."""
        config = replace(self.config, seed=-1, cumulative_weights=())
        clips = replace(self.clips, count=len(self.held_out.latents), first_seed=HELD_OUT_SEED)
        losses = [self._loss(config, clips, self.held_out, step).item() for step in range(8)]
        return {"held_out": sum(losses) / len(losses)}

    def write_sheet(self, path: Path) -> None:
        """Short videos of a few prompts, one per row."""
        guidance = 1.0 if self.teacher else 2.5
        frames = preview(self.model, self.vae, self.config.diagonal, self.clips, guidance=guidance)
        write_contact_sheet(path, to_bytes(frames))

    def export(self, folder: Path) -> Path:
        """Write the denoiser's file."""
        trained_on = {
            "world": fingerprint.world(self.clips.detail),
            "vocabulary": fingerprint.vocabulary(),
            "latents": fingerprint.latents(self.vae),
        }
        return checkpoint.save(self.model, folder / DENOISER_FILE, self.metadata | trained_on)

    def _loss(self, config: BatchConfig, clips: Clips, pool: Pool, step: int, *, weighted: bool = False) -> Tensor:
        device = _device(self.model)
        batch, prompts, dropped, crop = sample_batch(config, clips, pool.latents, step)
        weights = self._weights(crop, clips, pool, dropped).to(device) if weighted else 1.0
        batch, fps = batch.to(device), torch.tensor(clips.fps, device=device)
        with _autocast(device, self.precision):
            target = self.teacher.velocity(prompts, dropped, batch, fps) if self.teacher else None
            velocity = predict_velocity(self.model.stdit, self.model.encode_prompts(prompts, dropped), batch, fps)
            return velocity_loss(velocity, batch, target, weights).mean()

    def _weights(self, crop: Crop, clips: Clips, pool: Pool, dropped: Tensor) -> Tensor:
        weights = error_weights([clips.scene(clip) for clip in crop.clips], dropped, pool.latents.shape[-2])
        if not self.object_weight:
            return weights
        return weights * object_weights(pool.crop_object_mask(crop.ranges), self.object_weight)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
