"""A loaded model on its device, with what every model shares: attention backend, guidance, offloading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pavdm_cli.attention import TORCH, Attention, Case, choose_backend, machine_of
from pavdm_cli.models.adapter import (
    DenoiserConfig,
    LoadedModel,
    Options,
    Stream,
    TextEmbedding,
    TextEncoder,
    VideoModel,
)
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.offload import OffloadedModule, OffloadedStream, offload_blocks, offload_transformer, offload_vae
from pavdm_cli.models.parallel import Workers
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.streams import run_stream
from pavdm_cli.sampling.denoiser import (
    Denoiser,
    TextKV,
    batched_cfg,
    inside_context_manager,
    parallel_cfg,
    partition_window,
    sequential_cfg,
    with_onload,
    with_reference_ops,
)
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule


def _no_transfer() -> None:
    """For weights that stay where they are."""


@dataclass(frozen=True, slots=True)
class Offloading:
    """How offloaded weights are moved to the device and off it."""

    vae: OffloadedModule
    onload: Callable[[], None] = _no_transfer  # the transformer
    make_room: Callable[[], None] = _no_transfer  # for the VAE


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """A loaded model with its text encoder and how it runs."""

    spec: ModelSpec  # at the size and fps of the video
    video_model: VideoModel
    model: LoadedModel
    text_encoder: TextEncoder
    device: torch.device
    digest: str
    options: Options = field(default_factory=dict)
    attention: Attention = TORCH
    offloading: Offloading | None = None
    workers: Workers | None = None  # run the same calls in other processes
    sharded: bool = False  # each of these processes holds a share of the transformer's weights

    @property
    def transformer(self) -> nn.Module:
        """The transformer's network."""
        return self.model.transformer

    @property
    def vae(self) -> nn.Module:
        """The VAE's network; its weights may be offloaded."""
        return self.model.vae

    @property
    def layout(self) -> LatentLayout:
        """At the spec's size and fps."""
        return self.video_model.layout(self.spec.size, self.spec.fps)

    def noise_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Shape of one latent's noise, (B, C, h, w)."""
        return (batch, *self.layout.shape)

    def residual_values(self, guidance: float) -> int:
        """Values in the residual stream per latent: batch * tokens * width."""
        return (1 if guidance == 1 else 2) * self.model.tokens_per_latent(self.layout) * self.model.hidden_size

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
        """The denoiser for a formatted prompt; a single pass if guidance is 1 or the prompt is empty."""
        guidance = guidance if text else 1.0
        return self.denoiser_from_embeddings(
            self.embed(text, guidance != 1, negative), schedule, levels, guidance, execution
        )

    @torch.no_grad()
    def embed(self, text: str, cfg: bool, negative: str | None = None) -> list[TextEmbedding]:
        """The embedding of a formatted prompt, and with `cfg` that of the unconditional pass."""
        self._onload()
        if not text and negative is None and not self.spec.empty_prompt:
            return [self.model.unconditional(None, None)]
        (prompt,) = self.text_encoder.encode([text])
        if not cfg:
            return [prompt]
        negative_prompt = None if negative is None else self.text_encoder.encode([negative])[0]
        return [prompt, self.model.unconditional(prompt, negative_prompt)]

    def denoiser_from_embeddings(
        self,
        text: Sequence[TextEmbedding],
        schedule: Schedule,
        levels: NoiseLevels,
        guidance: float,
        execution: ExecutionConfig,
    ) -> Denoiser:
        """Like `denoiser`, for an encoded prompt."""
        text_kv = self.text_kv(text, schedule, execution)
        return self.bind(schedule, levels, guidance, execution)(text_kv)

    @torch.no_grad()
    def text_kv(
        self, text: Sequence[TextEmbedding], schedule: Schedule, execution: ExecutionConfig
    ) -> tuple[TextKV, ...]:
        """Keys and values of an encoded prompt, for each forward pass: two where guidance is sequential.

        With workers, those of the first pass, and what stands for the other one.
        """
        self._onload()
        config = self.denoiser_config(schedule, execution)
        passes = [[row] for row in text] if execution.cfg_batching == "sequential" else [text]
        if not self.workers:
            return tuple(self.model.text_kv(rows, config) for rows in passes)
        wait = self.workers.text_kv(passes, schedule, execution)
        with self.workers.translate_connection_errors():
            first_pass = self.model.text_kv(passes[0], config)
        return first_pass, wait()

    def bind(
        self, schedule: Schedule, levels: NoiseLevels, guidance: float, execution: ExecutionConfig
    ) -> Callable[[tuple[TextKV, ...]], Denoiser]:
        """A function from what `text_kv` returns to a denoiser under a schedule; calling it computes nothing."""
        self._onload()
        wait = self.workers.bind(schedule, levels, execution, guidance) if self.workers else None
        translate_connection_errors = self.workers.translate_connection_errors if self.workers else nullcontext
        with translate_connection_errors():
            build = self.model.bind(levels, self.denoiser_config(schedule, execution))
        remote = wait() if wait else None
        span = self.spec.window

        def one_pass(text: TextKV) -> Denoiser:
            return build(text) if execution.fused_kernels else with_reference_ops(build(text))

        def build_denoiser(text: tuple[TextKV, ...]) -> Denoiser:
            first, *other_passes = text
            if remote:
                local_denoiser = inside_context_manager(one_pass(first), translate_connection_errors)
                denoiser = parallel_cfg(local_denoiser, remote(other_passes[0]), guidance)
            elif other_passes:
                denoiser = sequential_cfg(one_pass(first), one_pass(other_passes[0]), guidance)
            else:
                denoiser = one_pass(first) if guidance == 1 else batched_cfg(one_pass(first), guidance)
            denoiser = with_onload(denoiser, self.offloading.onload) if self.offloading else denoiser
            return partition_window(denoiser, span) if schedule.window > span else denoiser

        return build_denoiser

    def _onload(self) -> None:
        """Load the transformer's offloaded weights onto the device."""
        if self.offloading:
            self.offloading.onload()

    def denoiser_config(self, schedule: Schedule, execution: ExecutionConfig) -> DenoiserConfig:
        """How denoisers are built for a schedule."""
        causal = self.spec.causal and not schedule.noisy_context
        return DenoiserConfig(
            position_offset=schedule.position_offset,
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
        """As `LoadedModel.encode_stream`; offloaded weights are loaded for each call."""
        return self._with_onload(self.model.encode_stream(self.spec))

    def decode_stream(self, context: Tensor | None = None) -> Stream:
        """As `LoadedModel.decode_stream`; offloaded weights are loaded for each call."""
        return self._with_onload(self.model.decode_stream(self.spec, context))

    def _with_onload(self, stream: Stream) -> Stream:
        offloading = self.offloading
        return OffloadedStream(stream, offloading.vae, offloading.make_room) if offloading else stream

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:  # (B, n, 3, H, W) -> (B, T, C, h, w)
        """Encode a whole clip."""
        return run_stream(self.encode_stream(), frames)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:  # (B, T, C, h, w) -> (B, n, 3, H, W)
        """Decode a whole clip."""
        return run_stream(self.decode_stream(), latents)

    def upcast(self, part: Literal["transformer", "vae"]) -> ModelRunner:
        """The same with a float32 copy of a part, to repeat a chunk that overflowed in lower precision."""
        if precision_of(self.transformer if part == "transformer" else self.vae) == "float32":
            return self
        if part == "vae":
            return replace(self, model=self.model.upcast("vae", self.device), offloading=None)
        wait = self.workers.gather_weights() if self.workers and self.sharded else _no_transfer
        on_host = self.sharded or self.offloading is not None
        model = self.model.upcast("transformer", HOST if on_host else self.device)
        wait()
        if on_host:
            offload_blocks(model, self.device)
        offloading = replace(self.offloading, onload=_no_transfer) if self.offloading else None
        alone = replace(self, model=model, offloading=offloading, workers=None, sharded=False)
        return with_attention(alone, "auto")


def precision_of(module: nn.Module) -> str:
    """The lowest precision of a module's weights, without the prefix `torch.`."""
    dtypes = {weight.dtype for weight in module.parameters()}
    narrow = [str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.itemsize < torch.float32.itemsize]
    return narrow[0] if narrow else "float32"


def with_offload(runner: ModelRunner, mode: str) -> ModelRunner:
    """The same model with its weights on the host, loaded when needed; modifies it in place, after any cast."""
    if mode == "none":
        return runner
    vae = offload_vae(runner.vae, runner.device)
    if mode == "sequential":
        offload_blocks(runner.model, runner.device)
        return replace(runner, offloading=Offloading(vae))
    transformer = offload_transformer(runner.model, runner.device)
    return replace(runner, offloading=Offloading(vae, transformer.onload, transformer.offload))


def with_attention(runner: ModelRunner, name: str) -> ModelRunner:
    """The same model with an attention backend by name, or the first that fits. Raises: UsageError, DeviceError."""
    case = Case(machine_of(runner.device), runner.model.dtype, runner.model.head_dim)
    return replace(runner, attention=choose_backend(name, case))
