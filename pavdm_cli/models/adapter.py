"""What every model is to the rest of the package: data, and two protocols, one without weights and one with them.

Torch is not imported here: options, sizes and prompts are checked before anything slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.lora_file import LoraFile
from pavdm_cli.models.spec import ModelOption, ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pavdm_cli.attention import Attention
    from pavdm_cli.sampling.denoiser import Denoiser
    from pavdm_cli.sampling.noise import NoiseLevels

Init = Literal["weights", "random", "meta"]  # read, random numbers of the true size, or no contents at all
Options = Mapping[str, Any]  # values of a model's own options, by `ModelOption.key`


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the text encoder gets it."""

    text: str
    notes: tuple[str, ...] = ()  # on what formatting changed
    caption: str = ""  # with which the video can be made again whatever the seed; empty where the prompt itself does
    negative: str | None = None  # of a model that is guided away from one


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, in which precision of matmuls, and how much its VAE works on at a time."""

    device: torch.device
    precision: str = "fp32"
    storage: torch.device | None = None  # where weights are until they are used; None: on the device
    text_device: torch.device | None = None  # of the text encoder; None: the device
    decode_batch: int = 4  # images of 240p in the VAE at a time
    tiled: bool = False  # each of them in tiles: less memory, and a slightly different image
    vae: bool = True  # whether the VAE is loaded
    transformer: bool = True  # whether the transformer is
    lora: tuple[LoraFile, ...] = ()  # merged into the transformer

    @property
    def weights(self) -> torch.device:
        """Where weights are loaded to."""
        return self.storage or self.device

    @property
    def text(self) -> torch.device:
        """Where prompts are encoded."""
        return self.text_device or self.device


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """A prompt's token vectors, and which of them belong to it."""

    rows: Tensor  # (L, width)
    mask: Tensor | None = None  # bool (L,); None: all do


@dataclass(frozen=True, slots=True)
class StepShape:
    """What one call of a transformer processes."""

    batch: int
    window: int  # latents
    context: int  # latents whose keys and values are cached
    text: int  # tokens
    prefill: bool = False  # the pass that fills the cache with the window's keys and values


@dataclass(frozen=True, slots=True)
class DenoiserConfig:
    """How a denoiser is built. The switches are for measurements: they change no frame."""

    context: int  # positions before the window's first latent
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
    """A VAE working through a video piece by piece, with the state that this takes."""

    @property
    def replay(self) -> int:
        """Latents that must be pushed again, from now, to rebuild the state exactly."""

    def push(self, values: Tensor, /) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, T, C, h, w) or back, as far as whole units have come."""

    def flush(self) -> Tensor:
        """What remains: the last, incomplete unit."""


class TextEncoder(Protocol):
    """Prompts to what the transformer reads of them."""

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """Raises: ModelError."""

    def memory(self, prompt: str, /) -> dict[str, int]:
        """Bytes that encoding a prompt takes, by part; nothing where it is cached, or the encoder is always there."""


class VideoModel(Protocol):
    """A model without weights; torch is imported by `noise_levels` and the two `load` functions alone."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def options(self) -> tuple[ModelOption, ...]: ...

    @property
    def published(self) -> ModelSpec:
        """Its spec under its own name, wherever these weights are."""

    def __hash__(self) -> int: ...

    def located(self, name: str, folder: Path) -> VideoModel:
        """The same model with the weights of a folder, under that name."""

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout: ...

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        """Noise fraction and timestep of every level; latents: as many as the model sees at once."""

    def timestep_ratio(self, size: tuple[int, int], latents: int) -> float:
        """How far training pushes timesteps towards noise, as `noise_levels` does; 1: not at all."""

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        """The prompt in the form of the training captions; source: caption of the video that is continued.

        Raises: UsageError.
        """

    @property
    def text_tokens(self) -> int:
        """Tokens of a prompt of usual length, for measuring speed."""

    def prompt_notes(self, text: str) -> list[str]:
        """What the model will not read of a formatted prompt, in a line."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a formatted prompt, near enough for an estimate."""

    def reference(self) -> tuple[list[Table], dict[str, Any]]:
        """Tables for `pavdm models show`, such as the words that it knows, and the same as JSON."""

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        """Raises: ModelError, DeviceError."""

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        """Raises: ModelError, DeviceError."""

    def digest(self) -> str:
        """16 hexadecimal digits of the weights. Raises: ModelError."""

    def weights_digest(self, part: str) -> str:
        """The same of the VAE's ("vae") or of all that a prompt's embedding depends on ("text")."""


Table = tuple[str, tuple[str, ...], Iterable[tuple[str, ...]]]  # title, head, rows


class LoadedModel(Protocol):
    """A model's weights. Offloading, FSDP, compiling and planning use `blocks` and `resident`, never member names."""

    @property
    def transformer(self) -> nn.Module: ...

    @property
    def vae(self) -> nn.Module: ...

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's blocks in the order they run."""

    @property
    def resident(self) -> frozenset[str]:
        """Names of a block's parameters that are read outside of its call too, and so stay on the device."""

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        """Groups of modules whose weights FSDP gathers together; each module is called, not only read."""

    @property
    def text_shape(self) -> tuple[int, int]:
        """Tokens of the longest prompt, and their width."""

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""

    @property
    def head_width(self) -> int:
        """Width of an attention head."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what the transformer processes."""

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Of its largest matmuls."""

    def tokens_per_latent(self, layout: LatentLayout) -> int: ...

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        """What guidance leads away from: null rows, or the negative prompt; without a prompt, what stands for none."""

    def encode_stream(self) -> Stream:
        """Frames to latents, of one clip."""

    def decode_stream(self, context: Tensor | None = None) -> Stream:
        """Latents to frames; context: latents that are run through first, their frames dropped."""

    def denoiser(self, text: Sequence[TextEmbedding], levels: NoiseLevels, config: DenoiserConfig) -> Denoiser:
        """A batch row per text; cheap, so a prompt can change mid-video."""

    def velocity(
        self, noisy: Tensor, timesteps: Tensor, text: Sequence[TextEmbedding], config: DenoiserConfig
    ) -> Tensor:  # (B, T, C, h, w), (B, T) from 0 to 1000
        """Clean - noise, differentiable; the first `config.context` latents attend over time to themselves alone."""

    def trainable(self) -> None:
        """Set `requires_grad` as the model was trained."""

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedModel:
        """The same with a float32 copy of one part on a device, its VAE with as little at a time as it can."""

    def narrow(self) -> tuple[LoadedModel, tuple[int, int]]:
        """As deep, but of the least width, and a size of one token per latent: to measure what Python costs."""

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        """Floating point operations, two for each multiplication and addition."""

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """Write trained weights in the published layout. Raises: OutputError."""
