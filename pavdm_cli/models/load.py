"""A model's spec to the model itself, on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.denoiser import Denoiser, guided, partitioned
from pavdm_cli.errors import DeviceError, UsageError
from pavdm_cli.models import store, words
from pavdm_cli.models.bind import levels_table, recomputing, remembering
from pavdm_cli.models.pocket import Pocket
from pavdm_cli.models.pocket_codec import PocketCodec
from pavdm_cli.schedule import Schedule
from pavdm_cli.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Loaded:
    """The embedded model, ready to be bound to a prompt."""

    spec: ModelSpec
    codec: PocketCodec
    denoiser: Pocket
    device: torch.device
    digest: str

    def noise_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Of one latent: (B, C, h, w)."""
        height, width = self.spec.size
        return batch, self.codec.config.latent_channels, height // 8, width // 8

    @torch.no_grad()
    def bind(self, prompt: str, schedule: Schedule, sigmas: Tensor, guidance: float) -> Denoiser:
        """The denoiser of a prompt under a schedule; one pass where guidance is 1 or the prompt is empty."""
        guidance = guidance if prompt else 1.0
        prompts = [prompt or "a"] * (1 if guidance == 1 else 2)
        text = self.denoiser.read(prompts, torch.tensor([not prompt, True][: len(prompts)]))
        stdit = self.denoiser.stdit
        table = levels_table(stdit, sigmas, self.spec.fps)
        kept = remembering if not schedule.renoised else recomputing  # what is re-noised changes at every step
        bound = kept(stdit, text, table, schedule.overlap)
        bound = bound if guidance == 1 else guided(bound, guidance)
        longest = self.spec.window
        return partitioned(bound, longest) if schedule.window > longest else bound


def load(spec: ModelSpec, device: torch.device) -> Loaded:
    """Read the weights. Raises: ModelError."""
    codec, denoiser = store.load_codec(spec.codec), store.load_denoiser(spec.denoiser)
    return Loaded(spec, codec.to(device), denoiser.to(device), device, store.digest(spec.codec, spec.denoiser))


def pick_device(name: str) -> torch.device:
    """The device of a name; auto takes a GPU where there is one. Raises: DeviceError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if name not in present:
        raise UsageError(f"--device must be auto, cpu, cuda or mps, got {name!r}", "leave it out for auto")
    if not present[name]:
        raise DeviceError(f"there is no {name} device here", "use --device cpu, or see `pavdm doctor`")
    return torch.device(name)


def check_prompt(prompt: str) -> list[str]:
    """Refuse a prompt the embedded model cannot read; notes on the words it leaves out. Raises: UsageError."""
    hint = "`pavdm models show pocket` lists the words it knows"
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')
    if not words.understood(prompt):
        raise UsageError(f"pocket knows none of the words in {prompt!r}", hint)
    strange, late = words.unknown(prompt), words.surplus(prompt)
    notes = [f"pocket does not know: {', '.join(strange)}; {hint}"] if strange else []
    return notes + ([f"pocket reads {words.LENGTH} words; left out: {' '.join(late)}"] if late else [])
