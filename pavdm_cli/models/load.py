"""A model's spec to the model itself, on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pavdm_cli.attention import TORCH, Attention, Case, choose_backend, machine_of
from pavdm_cli.errors import DeviceError
from pavdm_cli.models.compiled import compiled
from pavdm_cli.models.execution import DEVICES, Engine, Reading
from pavdm_cli.models.families import FAMILIES, Codec, Placing, TextEncoder
from pavdm_cli.models.offload import offloaded
from pavdm_cli.models.opensora import config as opensora
from pavdm_cli.models.opensora.prompt import with_scores
from pavdm_cli.models.opensora.vae import OpenSoraVAE
from pavdm_cli.models.pocket.vae import PocketCodec
from pavdm_cli.models.specs import ModelSpec
from pavdm_cli.models.stdit.denoiser import (
    attending,
    levels_table,
    of_rows,
    recomputing,
    reference_ops,
    remembering,
    renewed,
)
from pavdm_cli.models.stdit.layers import Linear
from pavdm_cli.models.stdit.transformer import STDiT, as_written
from pavdm_cli.runtime.validation import check_name
from pavdm_cli.sampling.denoiser import Denoiser, batched_cfg, partitioned, sequential_cfg, with_onload
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule

DEFAULT = Engine()
HOST = torch.device("cpu")
Words = tuple[Tensor, Tensor | None]  # token vectors (B, L, width), and which belong to the prompt (B, L): None for all
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
    arrive: Callable[[], None] | None = None  # brings the transformer's weights, where they wait elsewhere

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
        self, prompt: str, schedule: Schedule, levels: NoiseLevels, guidance: float, engine: Engine = DEFAULT
    ) -> Denoiser:
        """The denoiser of a prompt under a schedule; one pass where guidance is 1 or the prompt is empty."""
        if self.arrive:
            self.arrive()
        guidance = guidance if prompt else 1.0
        return self.bind_words(self.read(prompt, guidance != 1), schedule, levels, guidance, engine)

    @torch.no_grad()
    def bind_words(
        self, words: Words, schedule: Schedule, levels: NoiseLevels, guidance: float, engine: Engine = DEFAULT
    ) -> Denoiser:
        """The same of a prompt that is read already: with guidance its row, then the null embedding's."""
        run = compiled() if engine.compile else as_written
        text = _constant(lambda: attending(self.denoiser.encode_text(*words), self.attention, run), engine.text_memory)
        table = _constant(
            lambda: levels_table(self.denoiser, levels.sigmas, self.spec.fps, self.fp32_timesteps), engine.table
        )
        kept, size = self._kept(schedule, engine), self.spec.size if self.spec.scaled else None

        def make(rows: slice) -> Denoiser:
            return kept(self.denoiser, of_rows(text(), rows), table(), schedule.context, size)

        def bind(rows: slice) -> Denoiser:
            bound = make(rows) if engine.table and engine.text_memory else renewed(partial(make, rows))
            return bound if engine.fused else reference_ops(bound)

        bound = _guided(bind, guidance, engine.cfg_batching)
        bound = with_onload(bound, self.arrive) if self.arrive else bound
        longest = self.spec.window
        return partitioned(bound, longest) if schedule.window > longest else bound

    def remembers(self, schedule: Schedule, engine: Engine) -> bool:
        """Whether what comes from the overlap is computed once a shift: unless asked otherwise, where that is exact."""
        wanted = self.spec.causal if engine.reuse_context is None else engine.reuse_context
        return wanted and not schedule.noisy_context

    def _kept(self, schedule: Schedule, engine: Engine) -> Callable[..., Denoiser]:
        causal = self.spec.causal and not schedule.noisy_context
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


def _guided(bind: Callable[[slice], Denoiser], guidance: float, cfg_batching: str) -> Denoiser:
    """The rows of a prompt as one denoiser: alone, both in one batch, or one after the other."""
    if guidance != 1 and cfg_batching == "sequential":
        return sequential_cfg(bind(slice(0, 1)), bind(slice(1, 2)), guidance)
    both = bind(slice(None))
    return both if guidance == 1 else batched_cfg(both, guidance)


def _constant(make: Callable[[], T], once: bool) -> Callable[[], T]:
    """Made now and kept, or made whenever it is asked for."""
    if not once:
        return make
    made = make()
    return lambda: made


def load(
    spec: ModelSpec,
    device: torch.device,
    *,
    random: bool = False,
    reader: torch.device | None = None,
    wording: str = "",
    engine: Engine = DEFAULT,
) -> Loaded:
    """Read the weights; `random` makes some up instead, at full size, to measure speed.

    reader: the device of the text encoder, the model's own unless given; wording: a prompt that is read before other
    weights are loaded; engine: whether weights rest on the host, for `with_offload`, and how much the codec works on
    at a time. Raises: ModelError.
    """
    read, make_up = FAMILIES[spec.family]
    placing = Placing(device, reader or device, device if engine.offload == "none" else HOST, wording)
    parts = make_up(placing) if random else read(spec, placing)
    if isinstance(parts.codec, OpenSoraVAE):
        parts.codec.micro = engine.pictures
        parts.codec.tile(engine.vae_tiling == "on")
    return Loaded(spec, parts.codec, parts.denoiser, parts.text, device, parts.digest)


def with_offload(model: Loaded, mode: str) -> Loaded:
    """The same model, whose weights come to its device for their turn; changed in place, in its last precision."""
    if mode == "none":
        return model
    codec, arrive = offloaded(model.denoiser, model.codec, model.device, mode)
    return replace(model, codec=codec, arrive=arrive)


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


def with_attention(model: Loaded, name: str) -> Loaded:
    """The same model on the backend of this name, or for `auto` on the first that fits.

    Raises: UsageError, DeviceError.
    """
    config, weight = model.denoiser.config, model.denoiser.x_embedder.proj.weight
    case = Case(machine_of(model.device), weight.dtype, config.hidden // config.heads)
    return replace(model, attention=choose_backend(name, case))


def wording(spec: ModelSpec, prompt: str, reading: Reading) -> str:
    """The prompt as the model's text encoder is given it: with scores, where its captions had them."""
    if spec.family == "pocket" or not prompt:
        return prompt
    return with_scores(prompt, reading.aesthetic, reading.motion, reading.camera)


def pick_device(name: str, option: str = "--device") -> torch.device:
    """The device of an option; auto takes a GPU where there is one. Raises: UsageError, DeviceError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    check_name(option, name, DEVICES)
    if not present[name]:
        raise DeviceError(f"there is no {name} device here", f"use {option} cpu, or see `pavdm doctor`")
    return torch.device(name)
