"""A loaded model on its device, with all that is the same for every model: attention backend, guidance, offloading."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pavdm_cli.attention import TORCH, Attention, Case, choose_backend, machine_of
from pavdm_cli.hub.checkpoint import digest_files
from pavdm_cli.models.adapter import (
    DenoiserConfig,
    Init,
    LoadedModel,
    Options,
    Placement,
    Stream,
    TextEmbedding,
    TextEncoder,
    VideoModel,
)
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.offload import OffloadedModule, OffloadedStream, offload_blocks, offload_transformer, offload_vae
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.streams import run
from pavdm_cli.sampling.denoiser import (
    Denoiser,
    batched_cfg,
    partitioned,
    sequential_cfg,
    with_onload,
    with_reference_ops,
)
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule


def _nothing() -> None:
    """Moves nothing: all is where it is needed."""


@dataclass(frozen=True, slots=True)
class Offloading:
    """How offloaded weights come to the device and leave it."""

    vae: OffloadedModule
    onload: Callable[[], None] = _nothing  # the transformer
    make_room: Callable[[], None] = _nothing  # for the VAE


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """A model, ready to be given a prompt."""

    spec: ModelSpec  # at the size and rate asked for
    video_model: VideoModel
    model: LoadedModel
    text_encoder: TextEncoder
    device: torch.device
    digest: str
    options: Options = field(default_factory=dict)
    attention: Attention = TORCH
    offloading: Offloading | None = None

    @property
    def transformer(self) -> nn.Module:
        """The transformer's network."""
        return self.model.transformer

    @property
    def vae(self) -> nn.Module:
        """The VAE's network, wherever its weights are."""
        return self.model.vae

    @property
    def layout(self) -> LatentLayout:
        """At its size and rate."""
        return self.video_model.layout(self.spec.size, self.spec.fps)

    def noise_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Of one latent: (B, C, h, w)."""
        return (batch, *self.layout.shape)

    def residual_values(self, guidance: float) -> int:
        """Values of the residual stream that a latent takes: batch * tokens * width."""
        return (1 if guidance == 1 else 2) * self.model.tokens_per_latent(self.layout) * self.model.hidden

    def denoiser(
        self,
        text: str,
        schedule: Schedule,
        levels: NoiseLevels,
        guidance: float,
        execution: ExecutionConfig,
        *,
        negative: str | None = None,
    ) -> Denoiser:
        """The denoiser of a formatted prompt under a schedule; one pass where guidance is 1 or the prompt is empty."""
        if self.offloading:
            self.offloading.onload()
        guidance = guidance if text else 1.0
        return self.denoiser_of(self.embed(text, guidance != 1, negative), schedule, levels, guidance, execution)

    @torch.no_grad()
    def embed(self, text: str, cfg: bool, negative: str | None = None) -> list[TextEmbedding]:
        """A formatted prompt, and what guidance leads away from if there is any."""
        if not text and negative is None and not self.spec.empty_prompt:
            return [self.model.unconditional(None, None)]
        (prompt,) = self.text_encoder.encode([text])
        if not cfg:
            return [prompt]
        away = None if negative is None else self.text_encoder.encode([negative])[0]
        return [prompt, self.model.unconditional(prompt, away)]

    @torch.no_grad()
    def denoiser_of(
        self,
        text: Sequence[TextEmbedding],
        schedule: Schedule,
        levels: NoiseLevels,
        guidance: float,
        execution: ExecutionConfig,
    ) -> Denoiser:
        """The same of an encoded prompt."""
        config = self.denoiser_config(schedule, execution)

        def build(rows: Sequence[TextEmbedding]) -> Denoiser:
            denoiser = self.model.denoiser(rows, levels, config)
            return denoiser if execution.fused else with_reference_ops(denoiser)

        if guidance != 1 and execution.cfg_batching == "sequential":
            denoiser = sequential_cfg(build(text[:1]), build(text[1:]), guidance)
        else:
            denoiser = build(text) if guidance == 1 else batched_cfg(build(text), guidance)
        denoiser = with_onload(denoiser, self.offloading.onload) if self.offloading else denoiser
        longest = self.spec.window
        return partitioned(denoiser, longest) if schedule.window > longest else denoiser

    def denoiser_config(self, schedule: Schedule, execution: ExecutionConfig) -> DenoiserConfig:
        """How denoisers are built for a schedule: the context's keys and values are cached where that is exact."""
        causal = self.spec.causal and not schedule.noisy_context
        return DenoiserConfig(
            context=schedule.offset,
            size=self.spec.size,
            fps=self.spec.fps,
            reuse_context=execution.reuse_context and not schedule.noisy_context,
            causal_context=causal,
            attention=self.attention,
            options=self.options,
            compile=execution.compile,
            cache_modulation=execution.cache_modulation,
            cache_text=execution.cache_text,
        )

    def encode_stream(self) -> Stream:
        """As `LoadedModel.encode_stream`, its weights brought for each call."""
        return self._onloaded(self.model.encode_stream())

    def decode_stream(self, context: Tensor | None = None) -> Stream:
        """As `LoadedModel.decode_stream`, likewise."""
        return self._onloaded(self.model.decode_stream(context))

    def _onloaded(self, stream: Stream) -> Stream:
        away = self.offloading
        return OffloadedStream(stream, away.vae, away.make_room) if away else stream

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:  # (B, n, 3, H, W) -> (B, T, C, h, w)
        """A whole clip."""
        return run(self.encode_stream(), frames)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:  # (B, T, C, h, w) -> (B, n, 3, H, W)
        """A whole clip."""
        return run(self.decode_stream(), latents)

    def upcast(self, part: Literal["transformer", "vae"]) -> ModelRunner:
        """The same with a float32 copy of a part, to compute again what lower precision made of a chunk."""
        if precision_of(self.transformer if part == "transformer" else self.vae) == "float32":
            return self
        if part == "vae":
            vae_away = replace(self, model=self.model.upcast("vae", self.device))
            return replace(vae_away, offloading=None)
        model = self.model.upcast("transformer", HOST if self.offloading else self.device)
        if self.offloading:
            offload_blocks(model, self.device)
            return with_attention(
                replace(self, model=model, offloading=replace(self.offloading, onload=_nothing)), "auto"
            )
        return with_attention(replace(self, model=model), "auto")


def precision_of(module: nn.Module) -> str:
    """The lowest precision of a module's weights, as people name it."""
    dtypes = {weight.dtype for weight in module.parameters()}
    narrow = [str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.itemsize < torch.float32.itemsize]
    return narrow[0] if narrow else "float32"


def open_runner(
    video_model: VideoModel,
    spec: ModelSpec,
    placement: Placement,
    *,
    init: Init = "weights",
    prompts: Sequence[str] = (),
    options: Options | None = None,
) -> ModelRunner:
    """Load a model. The prompts are encoded before its other weights come, and stay in the encoder's cache.

    Raises: ModelError, DeviceError.
    """
    text_encoder = video_model.load_text_encoder(placement, init)
    if init == "weights" and prompts:
        text_encoder.encode(prompts)
    digest = weights_digest(video_model, placement) if init == "weights" else init
    model, device = video_model.load(placement, init), placement.device
    device = torch.device("meta") if init == "meta" else device
    return ModelRunner(spec, video_model, model, text_encoder, device, digest, options or {})


def weights_digest(video_model: VideoModel, placement: Placement) -> str:
    """16 hexadecimal digits of the weights, and of what is merged into them. Raises: ModelError."""
    own = video_model.digest()
    if not placement.lora:
        return own
    merged = [f"{digest_files([adapter.path])} {adapter.scale}" for adapter in placement.lora]
    return hashlib.sha256(" ".join([own, *merged]).encode()).hexdigest()[:16]


def place(execution: ExecutionConfig, text_device: torch.device | None = None) -> Placement:
    """Where a model goes: onto the host first, where its weights are offloaded."""
    return Placement(
        torch.device(execution.device),
        execution.precision,
        storage=None if execution.offload == "none" else HOST,
        text_device=text_device,
        decode_batch=execution.decode_batch,
        tiled=execution.vae_tiling == "on",
    )


def with_offload(runner: ModelRunner, mode: str) -> ModelRunner:
    """The same model, whose weights come to its device for their turn; changed in place, in its last precision."""
    if mode == "none":
        return runner
    vae = offload_vae(runner.vae, runner.device)
    if mode == "sequential":
        offload_blocks(runner.model, runner.device)
        return replace(runner, offloading=Offloading(vae))
    transformer = offload_transformer(runner.model, runner.device)
    return replace(runner, offloading=Offloading(vae, transformer.onload, transformer.offload))


def with_attention(runner: ModelRunner, name: str) -> ModelRunner:
    """The same model with the backend of that name, or the first that fits. Raises: UsageError, DeviceError."""
    case = Case(machine_of(runner.device), runner.model.dtype, runner.model.head_width)
    return replace(runner, attention=choose_backend(name, case))
