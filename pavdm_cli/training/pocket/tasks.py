"""What can be trained: the codec, and the denoiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE, reconstruction_psnr
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import sample_scene
from pavdm_cli.training.batches import BatchConfig, sample_batch
from pavdm_cli.training.losses import predict_velocity, velocity_loss
from pavdm_cli.training.pocket import fingerprint
from pavdm_cli.training.pocket import vae as codec_training
from pavdm_cli.training.pocket.distillation import Teacher
from pavdm_cli.training.pocket.latent_pool import Clips
from pavdm_cli.training.pocket.loss_weights import emphasis
from pavdm_cli.training.pocket.preview import preview
from pavdm_cli.training.pocket.vae import Frames
from pavdm_cli.video.contact_sheet import write_contact_sheet


@dataclass(frozen=True, slots=True)
class CodecTask:
    """Frames through the codec and back."""

    model: PocketVAE
    frames: Frames
    about: dict[str, object]
    name: str = "codec"

    def loss(self, step: int) -> Tensor:
        """A fresh batch every step."""
        device = _device(self.model)
        with torch.autocast(device.type, torch.bfloat16):
            picture = codec_training.batch(self.frames, step, device)
            return codec_training.loss(self.model, picture, torch.Generator().manual_seed(step))

    def validate(self) -> dict[str, float]:
        """Signal-to-noise ratio on held-out scenes, over all pixels and over the object's."""
        held = self._held_out()
        frames, mask = held.frames.flatten(0, 1), held.mask.flatten(0, 1)
        everywhere, inside = reconstruction_psnr(self.model, frames, mask)
        return {"psnr": everywhere, "object_psnr": inside}

    def write_sheet(self, path: Path) -> None:
        """Held-out frames above what the codec makes of them."""
        frames = self._held_out(12).frames.flatten(0, 1)
        with torch.no_grad():
            coded = self.model.decode_frames(self.model.encode_frames(frames)).clamp(0, 1)
        write_contact_sheet(path, to_bytes(torch.stack([frames, coded])))

    def export(self, folder: Path) -> Path:
        """The codec's file."""
        trained_on = {"world": fingerprint.world(self.frames.detail)}
        return checkpoint.save(self.model, folder / "codec.safetensors", self.about | trained_on | self.validate())

    def _held_out(self, count: int = 64) -> SceneFrames:
        seconds = torch.rand(count, 1, generator=torch.Generator().manual_seed(1)) * 60
        device = _device(self.model)
        on = canvas(self.frames.size, self.frames.detail, device)
        return render([sample_scene(i) for i in range(count)], seconds.to(device), on)


@dataclass(frozen=True, slots=True)
class DenoiserTask:
    """Windows of latents at the noise levels of a method."""

    model: Pocket
    codec: PocketVAE
    recipe: BatchConfig
    clips: Clips
    pool: Tensor  # float16 (clips, latents, C, h, w)
    held_out: Tensor  # the same of other clips
    about: dict[str, object]
    teacher: Teacher | None = None  # whose guided velocity is learnt, instead of the clips'

    @property
    def name(self) -> str:
        """The method is part of it: the same step has other windows; and so is what is learnt of them."""
        learnt = f", guidance of {self.teacher.guidance:g}" if self.teacher else ""
        return f"denoiser by method {self.recipe.method}{learnt}"

    def loss(self, step: int) -> Tensor:
        """The windows of a step; what is faint counts more."""
        return self._loss(self.recipe, self.clips, self.pool, step, weighed=True)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss on held-out clips, all errors alike, over the same windows and noise every time."""
        other = replace(self.recipe, seed=-1)
        clips = replace(self.clips, count=len(self.held_out), first_seed=HELD_OUT_SEED)
        rows = [self._loss(other, clips, self.held_out, step).item() for step in range(8)]
        return {"held_out": sum(rows) / len(rows)}

    def write_sheet(self, path: Path) -> None:
        """A few prompts as short videos, a row each."""
        guidance = 1.0 if self.teacher else 2.5
        shown = preview(self.model, self.codec, self.recipe.diagonal, self.clips, guidance=guidance)
        write_contact_sheet(path, to_bytes(shown))

    def export(self, folder: Path) -> Path:
        """The denoiser's file."""
        trained_on = {
            "world": fingerprint.world(self.clips.detail),
            "vocabulary": fingerprint.vocabulary(),
            "latents": fingerprint.latents(self.codec),
        }
        return checkpoint.save(self.model, folder / "denoiser.safetensors", self.about | trained_on)

    def _loss(self, recipe: BatchConfig, clips: Clips, pool: Tensor, step: int, *, weighed: bool = False) -> Tensor:
        device = _device(self.model)
        batch, prompts, dropped, chosen = sample_batch(recipe, clips, pool, step)
        scenes = [clips.scene(clip) for clip in chosen]
        weights = emphasis(scenes, dropped, pool.shape[-2]).to(device) if weighed else 1.0
        batch, fps = batch.to(device), torch.tensor(clips.fps, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            target = self.teacher.velocity(prompts, dropped, batch, fps) if self.teacher else None
            velocity = predict_velocity(self.model.stdit, self.model.encode_prompts(prompts, dropped), batch, fps)
            return velocity_loss(velocity, batch, target, weights).mean()


HELD_OUT_SEED = 3_000_000


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
