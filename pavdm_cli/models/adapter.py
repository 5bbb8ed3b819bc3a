"""The interface of a model: its data, and two protocols, one without weights and one with them.

Does not import torch: options, sizes and prompts are checked before anything slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pavdm_cli.models.execution import VAE_BATCH_SIZE
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.lora_file import LoraFile
from pavdm_cli.models.spec import ModelOption, ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pavdm_cli.attention import Attention
    from pavdm_cli.hub.checkpoint import StoredTensors
    from pavdm_cli.sampling.denoiser import Denoiser, TextKV
    from pavdm_cli.sampling.noise import NoiseLevels

Init = Literal["weights", "random", "meta"]  # published weights, random ones of the same size, or meta tensors
# Values of the options that a model adds, by `ModelOption.key`; those at their default are missing, and on the meta
# device all are: read them with `options.get(key, default)`.
Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A formatted prompt, as the text encoder gets it."""

    text: str
    notes: tuple[str, ...] = ()  # on what formatting changed
    # The complete prompt: it is formatted the same with every seed, unlike the noise; empty if the prompt itself is.
    caption: str = ""
    negative: str | None = None  # for models that take a negative prompt
    later: tuple[tuple[float, str], ...] = ()  # prompts that follow while the video runs, by their start in seconds


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, its matmul precision, which parts are loaded, and the batch size of its VAE."""

    device: torch.device
    precision: str = "fp32"
    storage: torch.device | None = None  # of offloaded weights; None: the device
    text_device: torch.device | None = None  # of the text encoder; None: the device
    vae_batch_size: int = VAE_BATCH_SIZE  # frames of 240p in the VAE at a time
    tiled: bool = False  # run the VAE in tiles: less memory, slightly different frames
    load_vae: bool = True
    load_transformer: bool = True
    shards: int = 1  # processes that share the transformer's weights: each loads its own once they are sharded
    lora: tuple[LoraFile, ...] = ()  # merged into the transformer

    @property
    def weights_device(self) -> torch.device:
        """The device that weights are loaded to."""
        return self.storage or self.device

    @property
    def loads_shards(self) -> bool:
        """Whether the transformer stays on the meta device until it is sharded; a LoRA is merged into whole weights."""
        return self.shards > 1 and not self.lora

    def bytes_by_device(self, transformer: int, vae: int) -> dict[torch.device, int]:
        """What loading weights of these sizes needs on each device; a shard goes straight to the model's device."""
        weights_device = self.weights_device
        shard, device = (
            (transformer // self.shards, self.device) if self.loads_shards else (transformer, weights_device)
        )
        return {weights_device: vae} | {device: shard + vae * (device == weights_device)}

    @property
    def text_encoder_device(self) -> torch.device:
        """The device of the text encoder."""
        return self.text_device or self.device


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """A prompt's token embeddings, and which of them are not padding."""

    embeds: Tensor  # (L, width)
    mask: Tensor | None = None  # bool (L,); None: no padding


@dataclass(frozen=True, slots=True)
class StepShape:
    """The size of one call of a transformer."""

    batch: int
    window: int  # latents
    context: int  # latents whose keys and values are cached
    text: int  # tokens
    prefill: bool = False  # the call that caches the keys and values of `window` latents


@dataclass(frozen=True, slots=True)
class DenoiserConfig:
    """How a denoiser is built. `cache_modulation` and `cache_text` are for benchmarks: they change no frame."""

    position_offset: int  # RoPE position of the window's first latent
    size: tuple[int, int]  # pixels, height and width
    fps: float
    reuse_context: bool  # keys and values of the context are cached until the window shifts
    causal_context: bool  # the context attends to itself alone
    attention: Attention
    options: Options = field(default_factory=dict)
    compile: bool = False
    cache_modulation: bool = True
    cache_text: bool = True


class Stream(Protocol):
    """A VAE that encodes or decodes one video piece by piece, and its state."""

    @property
    def replay(self) -> int:
        """Number of most recent latents to replay to rebuild the current state exactly."""

    def push(self, values: Tensor, /) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, T, C, h, w), or back; an incomplete unit waits for more.

        Where nothing is complete, the second size of the result is 0, and its later sizes do not matter.
        """

    def flush(self) -> Tensor:
        """The last, incomplete unit; empty, as in `push`, if there is none."""


class TextEncoder(Protocol):
    """Encodes prompts for the transformer."""

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Raises: ModelError."""

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """Bytes that encoding a prompt takes, by part; empty if it is cached or the encoder is always loaded."""


class VideoModel(Protocol):
    """A model without weights; only `noise_levels` and the two `load` methods import torch."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def options(self) -> tuple[ModelOption, ...]: ...

    @property
    def published_spec(self) -> ModelSpec:
        """The spec of the published model, also where these weights are in a folder of the user's."""

    def __hash__(self) -> int: ...

    def with_weights(self, name: str, folder: Path) -> VideoModel:
        """The same model with the weights in a folder, under another name."""

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout: ...

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        """Noise fraction and timestep of every level; latents: of the window and its context."""

    def timestep_shift(self, size: tuple[int, int], latents: int) -> float:
        """The timestep shift of training, the same as in `noise_levels`; 1: none."""

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        """The prompt in the form of the training captions.

        text: not blank; source: caption of the video that is continued. Raises: UsageError.
        """

    @property
    def text_tokens(self) -> int:
        """Tokens of a typical prompt, for benchmarks."""

    def truncation_notes(self, text: str) -> list[str]:
        """One line on what is cut off a formatted prompt, if anything."""

    def count_tokens(self, text: str) -> int:
        """Approximate number of tokens of a formatted prompt."""

    def prompt_help(self) -> tuple[list[HelpTable], dict[str, Any]]:
        """Tables on prompts for `pavdm models show`, such as the vocabulary, and the same as JSON."""

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        """Raises: ModelError, DeviceError."""

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        """Raises: ModelError, DeviceError."""

    def digest(self) -> str:
        """16 hexadecimal digits of the weights. Raises: ModelError."""

    def part_digest(self, part: str) -> str:
        """The same of the VAE ("vae"), or of everything that a prompt's embedding depends on ("text")."""


HelpTable = tuple[str, tuple[str, ...], Iterable[tuple[str, ...]]]  # title, header, rows


class LoadedModel(Protocol):
    """A model with weights. Offloading, FSDP and memory planning use only `blocks` and `resident`."""

    @property
    def transformer(self) -> nn.Module: ...

    @property
    def vae(self) -> nn.Module: ...

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's blocks in the order they run."""

    @property
    def stored_transformer(self) -> StoredTensors | None:
        """The transformer's weights, if it is on the meta device until it is sharded; else None."""

    @property
    def resident(self) -> frozenset[str]:
        """Names of a block's parameters that are also read outside its call, and so stay on the device."""

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        """Groups of modules whose weights FSDP gathers together, around their calls."""

    @property
    def forward_methods(self) -> Sequence[tuple[nn.Module, str]]:
        """Methods other than `forward` that denoisers call, around which FSDP gathers weights: (module, name)."""

    @property
    def text_shape(self) -> tuple[int, int]:
        """Length of the longest prompt in tokens, and their width."""

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream."""

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Dtype of the largest matmuls."""

    def tokens_per_latent(self, layout: LatentLayout) -> int: ...

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        """The embedding for the unconditional pass: null rows, or the negative prompt; `prompt` None: without text."""

    def encode_stream(self, spec: ModelSpec) -> Stream:
        """Frames to latents, of one clip; spec: at the size and frame rate of the video."""

    def decode_stream(self, spec: ModelSpec, context: Tensor | None = None) -> Stream:
        """Latents to frames; context: latents that are decoded first, and whose frames are dropped."""

    def text_kv(self, text: Sequence[TextEmbedding], config: DenoiserConfig) -> TextKV:
        """Keys and values of the texts, a batch row each: all that a denoiser needs of them."""

    def bind(self, levels: NoiseLevels, config: DenoiserConfig) -> Callable[[TextKV], Denoiser]:
        """A function from what `text_kv` returns to a denoiser; calling it computes nothing.

        A denoiser's levels are rows of `levels.timesteps`, which may be on another device; a velocity has the window's
        dtype. On the meta device memory is estimated by running it, so no tensor's value may decide what is computed.
        """

    def velocity(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Sequence[TextEmbedding],
        config: DenoiserConfig,
        num_context_latents: int = 0,
    ) -> Tensor:  # (B, T, C, h, w), (B, T) from 0 to 1000
        """Clean - noise, differentiable; the first `num_context_latents` attend over time to themselves alone."""

    def unfreeze(self) -> None:
        """Set `requires_grad` on the weights that the model's own training updates."""

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedModel:
        """The same with a float32 copy of one part on a device, a VAE with the smallest batch."""

    def shrink(self) -> tuple[LoadedModel, tuple[int, int]]:
        """The same depth at the smallest width, and a size with one token per latent: measures host overhead."""

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        """Floating point operations of a call; a multiply-add counts as two."""

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """Write trained weights in the published layout. Raises: OutputError."""
