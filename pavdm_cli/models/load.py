"""A model's spec to the model itself, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pavdm_cli.attention import TORCH, Attention, Case, choose, machine_of
from pavdm_cli.denoiser import Denoiser, guided, partitioned
from pavdm_cli.errors import DeviceError, UsageError
from pavdm_cli.models import opensora, words
from pavdm_cli.models.bind import attending, levels_table, recomputing, remembering, renewed, unfused
from pavdm_cli.models.captions import with_scores
from pavdm_cli.models.compiled import compiled
from pavdm_cli.models.families import FAMILIES, Codec, TextEncoder
from pavdm_cli.models.layers import Linear
from pavdm_cli.models.pocket_codec import PocketCodec
from pavdm_cli.models.stdit import STDiT, as_written
from pavdm_cli.request import Engine, Reading
from pavdm_cli.schedule import Schedule
from pavdm_cli.specs import ModelSpec

DEFAULT = Engine()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, ready to be bound to a prompt."""

    spec: ModelSpec
    codec: Codec
    denoiser: STDiT
    text: TextEncoder
    device: torch.device
    digest: str
    attention: Attention = TORCH
    fp32_timesteps: bool = False

    def noise_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Of one latent: (B, C, h, w)."""
        height, width = self.spec.size
        return batch, self.denoiser.config.in_channels, height // 8, width // 8

    def stream(self, guidance: float) -> int:
        """Values of the residual stream that a latent takes: batch * tokens * width."""
        (_, _, height, width), config = self.noise_shape(), self.denoiser.config
        tokens = -(-height // config.patch[1]) * -(-width // config.patch[2])
        return (1 if guidance == 1 else 2) * tokens * config.hidden

    @torch.no_grad()
    def bind(
        self, prompt: str, schedule: Schedule, sigmas: Tensor, guidance: float, engine: Engine = DEFAULT
    ) -> Denoiser:
        """The denoiser of a prompt under a schedule; one pass where guidance is 1 or the prompt is empty."""
        guidance = guidance if prompt else 1.0
        words = self.read(prompt, guidance != 1)
        run = compiled() if engine.compile else as_written
        text = _constant(lambda: attending(self.denoiser.encode_text(*words), self.attention, run), engine.text_memory)
        table = _constant(lambda: levels_table(self.denoiser, sigmas, self.spec.fps, self.fp32_timesteps), engine.table)
        kept, size = self._kept(schedule, engine), self.spec.size if self.spec.scaled else None

        def make() -> Denoiser:
            return kept(self.denoiser, text(), table(), schedule.overlap, size)

        bound = make() if engine.table and engine.text_memory else renewed(make)
        bound = bound if engine.fused else unfused(bound)
        bound = bound if guidance == 1 else guided(bound, guidance)
        longest = self.spec.window
        return partitioned(bound, longest) if schedule.window > longest else bound

    def remembers(self, schedule: Schedule, engine: Engine) -> bool:
        """Whether what comes from the overlap is computed once a shift: unless asked otherwise, where that is exact."""
        wanted = self.spec.causal if engine.overlap_memory is None else engine.overlap_memory
        return wanted and not schedule.renoised

    def _kept(self, schedule: Schedule, engine: Engine) -> Callable[..., Denoiser]:
        causal = self.spec.causal and not schedule.renoised
        return remembering if self.remembers(schedule, engine) else partial(recomputing, causal=causal)

    def read(self, prompt: str, unconditional: bool) -> tuple[Tensor, Tensor]:
        """Token vectors of a prompt and their mask, with the null embedding after it if asked, under the prompt's mask.

        No prompt is the null embedding alone, which needs no text encoder.
        """
        null = self.denoiser.y_embedder.y_embedding[None].to(self.denoiser.x_embedder.proj.weight)
        if not prompt:
            alone = null[:, : self.spec.wordless]
            return alone, torch.ones(alone.shape[:2], dtype=torch.bool, device=alone.device)
        y, mask = self.text.embed([prompt])
        y = y.to(null)
        rows = [y, null[:, : y.shape[1]]] if unconditional else [y]
        return torch.cat(rows), mask.to(y.device).repeat(len(rows), 1)


def _constant(make: Callable[[], T], once: bool) -> Callable[[], T]:
    """Made now and kept, or made whenever it is asked for."""
    if not once:
        return make
    made = make()
    return lambda: made


def load(spec: ModelSpec, device: torch.device, *, random: bool = False, reader: torch.device | None = None) -> Loaded:
    """Read the weights; `random` makes some up instead, at full size, to measure speed.

    reader: the device of the text encoder, the model's own unless given. Raises: ModelError.
    """
    read, make_up = FAMILIES[spec.family]
    parts = make_up(device) if random else read(spec, device, reader or device)
    return Loaded(spec, parts.codec, parts.denoiser, parts.text, device, parts.digest)


def own_precision(spec: ModelSpec, device: torch.device) -> str:
    """The precision a model's products are in on a device unless asked otherwise."""
    return "bf16" if spec.family != "pocket" and opensora.precision(device) == torch.bfloat16 else "fp32"


def in_precision(model: Loaded, wanted: str) -> Loaded:
    """The same model, changed in place: the embedded one's products of tokens and pictures in bfloat16 if asked."""
    if wanted == "bf16" and isinstance(model.codec, PocketCodec):
        model.codec.decoder.to(torch.bfloat16)
        for layer in model.denoiser.modules():
            if isinstance(layer, Linear):
                layer.to(torch.bfloat16)
    return model


def with_attention(model: Loaded, wanted: str) -> Loaded:
    """The same model on the back end that was named, or on the first that fits. Raises: UsageError, DeviceError."""
    config, weight = model.denoiser.config, model.denoiser.x_embedder.proj.weight
    case = Case(machine_of(model.device), weight.dtype, config.hidden // config.heads)
    return replace(model, attention=choose(wanted, case))


def wording(spec: ModelSpec, prompt: str, reading: Reading) -> str:
    """The prompt as the model's text encoder is given it: with scores, where its captions had them."""
    if spec.family == "pocket" or not prompt:
        return prompt
    return with_scores(prompt, reading.aesthetic, reading.motion, reading.camera)


def check_prompt(spec: ModelSpec, prompt: str) -> list[str]:
    """Refuse a prompt the model cannot read; notes on what it leaves out. Raises: UsageError."""
    return words.check_prompt(prompt) if spec.family == "pocket" else opensora.check_prompt(prompt)


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
