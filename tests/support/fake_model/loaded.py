"""The fake model with its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import StoredTensors
from pavdm_cli.models.adapter import DenoiserConfig, Init, Placement, StepShape, TextEmbedding
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.noise import NoiseLevels

HIDDEN, TEXT = 16, 8


class Block(nn.Module):
    """Full attention over all tokens of the context and the window, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.qkv, self.proj = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.mlp = nn.Sequential(
            nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 2 * HIDDEN), nn.GELU(), nn.Linear(2 * HIDDEN, HIDDEN)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(x)
        return out


class Transformer(nn.Module):
    """Noise - clean, which the model's folder turns round."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, HIDDEN), nn.Linear(HIDDEN, 4)
        self.time, self.text = nn.Linear(1, HIDDEN), nn.Linear(TEXT, HIDDEN)
        self.layers = nn.ModuleList(Block() for _ in range(3))

    def forward(self, z: Tensor, times: Tensor, text: Tensor) -> Tensor:  # (B, T, 4, h, w), (B, T), (B, TEXT)
        x = self.enter(z.movedim(2, -1)) + self.time(times[..., None] / 1000)[:, :, None, None]
        x = (x + self.text(text)[:, None, None, None]).flatten(1, 3)
        for layer in self.layers:
            x = layer(x)
        return self.leave(x).unflatten(1, (z.shape[1], *z.shape[3:])).movedim(-1, 2)


class VAE(nn.Module):
    """Every latent is seen together with half of the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 4), nn.Linear(4, 3)

    def encode(self, frames: Tensor) -> Tensor:  # (B, n, 3, H, W), one latent's -> (B, 1, 4, h, w)
        pooled = nn.functional.avg_pool2d(frames.mean(dim=1), 8)
        out: Tensor = self.enter(pooled.movedim(1, -1)).movedim(-1, 1)[:, None]
        return out

    def decode(self, latent: Tensor, before: Tensor, count: int) -> Tensor:  # (B, 4, h, w) -> (B, count, 3, 8h, 8w)
        mixed = [latent + (0.5 - 0.1 * number) * before for number in range(count)]
        frames = torch.sigmoid(self.leave(torch.stack(mixed, dim=1).movedim(2, -1))).movedim(-1, 2)
        return frames.repeat_interleave(8, dim=-2).repeat_interleave(8, dim=-1)


@dataclass
class DecodeStream:
    """One latent is its state."""

    vae: VAE
    before: Tensor | None = None

    @property
    def replay(self) -> int:
        return 0 if self.before is None else 1

    @torch.no_grad()
    def push(self, latents: Tensor, /) -> Tensor:
        frames = []
        for latent in latents.unbind(1):
            before, count = (torch.zeros_like(latent), 1) if self.before is None else (self.before, 4)
            frames.append(self.vae.decode(latent, before, count))
            self.before = latent
        return torch.cat(frames, dim=1)

    def flush(self) -> Tensor:
        return torch.empty(1, 0, 1, 1, 1)


@dataclass
class EncodeStream:
    """One frame, then fours of them; what is no whole four waits."""

    vae: VAE
    waiting: list[Tensor] = field(default_factory=list)
    begun: bool = False

    @property
    def replay(self) -> int:
        return 0

    @torch.no_grad()
    def push(self, frames: Tensor, /) -> Tensor:
        latents = [frames.new_empty(1, 0, 4, frames.shape[-2] // 8, frames.shape[-1] // 8)]
        for frame in frames.unbind(1):
            self.waiting.append(frame)
            if len(self.waiting) == (4 if self.begun else 1):
                latents.append(self.flush())
        return torch.cat(latents, dim=1)

    @torch.no_grad()
    def flush(self) -> Tensor:
        if not self.waiting:
            return torch.empty(1, 0, 1, 1, 1)
        frames, self.waiting, self.begun = torch.stack(self.waiting, dim=1), [], True
        return self.vae.encode(frames.to(self.vae.enter.weight))


@dataclass
class TextEncoder:
    """A vector for every word."""

    table: nn.Embedding

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        return [
            TextEmbedding(self.table(torch.tensor(_ids(prompt), device=self.table.weight.device))) for prompt in prompts
        ]

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        return {"weights": 64 * TEXT * 4}


def _ids(prompt: str) -> list[int]:
    return [sum(word.encode()) % 64 for word in prompt.split()] or [0]


@dataclass(frozen=True)
class Loaded:
    """Implements `LoadedModel`."""

    transformer: Transformer
    vae: VAE
    source: Path
    hidden_size: int = HIDDEN
    head_dim: int = HIDDEN // 2
    resident: frozenset[str] = frozenset()
    stored_transformer: StoredTensors | None = None
    text_shape: tuple[int, int] = (16, TEXT)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.transformer.layers)

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        return [[block] for block in self.transformer.layers]

    @property
    def forward_methods(self) -> Sequence[tuple[nn.Module, str]]:
        return []

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.enter.weight.dtype

    @property
    def matmul_dtype(self) -> torch.dtype:
        return self.dtype

    def tokens_per_latent(self, layout: LatentLayout) -> int:
        return layout.shape[1] * layout.shape[2]

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        return negative or TextEmbedding(self.transformer.enter.weight.new_zeros(1, TEXT))

    def encode_stream(self, spec: ModelSpec) -> EncodeStream:
        return EncodeStream(self.vae)

    def decode_stream(self, spec: ModelSpec, context: Tensor | None = None) -> DecodeStream:
        return DecodeStream(self.vae, None if context is None else context[:, -1])

    def text_kv(self, text: Sequence[TextEmbedding], config: DenoiserConfig) -> Tensor:
        return self._vectors(text)

    def bind(self, levels: NoiseLevels, config: DenoiserConfig) -> Callable[[Tensor], Denoiser]:
        def prefill(context: Tensor, level: int) -> tuple[Tensor, int]:
            return context, level

        @torch.no_grad()
        def velocity(window: Tensor, rows: Tensor, cache: tuple[Tensor, int] | None, vectors: Tensor) -> Tensor:
            context, level = cache or (window[:, :0], 0)
            rows = torch.cat([rows.new_full((*rows.shape[:-1], context.shape[1]), level), rows], dim=-1)
            times = levels.timesteps.to(window.device)[rows.long()].expand(len(window), -1)
            latents = torch.cat([context, window], dim=1)
            out: Tensor = -self.transformer(latents, times.to(latents), vectors)
            return out[:, context.shape[1] :]

        return lambda vectors: FunctionDenoiser(prefill, partial(velocity, vectors=vectors))

    def _vectors(self, text: Sequence[TextEmbedding]) -> Tensor:
        return torch.stack([one.embeds.to(self.transformer.enter.weight).mean(dim=0) for one in text])

    def velocity(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Sequence[TextEmbedding],
        config: DenoiserConfig,
        num_context_latents: int = 0,
    ) -> Tensor:
        out: Tensor = -self.transformer(noisy, timesteps.to(noisy), self._vectors(text))
        return out

    def unfreeze(self) -> None:
        self.transformer.requires_grad_(True)

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> Loaded:
        return self

    def shrink(self) -> tuple[Loaded, tuple[int, int]]:
        return self, (8, 8)

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        tokens = step.batch * step.window * self.tokens_per_latent(layout)
        return 2.0 * tokens * len(self.blocks) * (8 * HIDDEN**2 + 2 * HIDDEN * (step.window + step.context))

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        stored = load_file(self.source / "fake.safetensors")
        write_folder(folder / "net", stored | {f"transformer.{name}": value for name, value in weights.items()})
        return folder


def load_text_encoder(folder: Path, placement: Placement, init: Init) -> TextEncoder:
    table = _part("text", lambda: nn.Embedding(64, TEXT), folder, placement.text_encoder_device, init)
    return TextEncoder(table)


def load(folder: Path, placement: Placement, init: Init) -> Loaded:
    device = placement.weights_device
    return Loaded(
        _part("transformer", Transformer, folder, device, init), _part("vae", VAE, folder, device, init), folder
    )


def _part(name: str, build: Callable[[], Any], folder: Path, device: torch.device, init: Init) -> Any:
    if init == "random":
        return init_random(build, device, torch.float32, {})
    with torch.device("meta"):
        part = build()
    if init == "weights":
        stored = load_file(folder / "fake.safetensors")
        weights = {key.removeprefix(f"{name}."): value.float() for key, value in stored.items() if key.startswith(name)}
        part.load_state_dict(weights, assign=True)
        part.to(device)
    return part.eval().requires_grad_(False)


def write(folder: Path) -> Path:
    """The model's folder, every weight random."""
    parts: dict[str, Callable[[], nn.Module]] = {
        "transformer": Transformer,
        "vae": VAE,
        "text": lambda: nn.Embedding(64, TEXT),
    }
    weights = {}
    for name, build in parts.items():
        module = init_random(build, torch.device("cpu"), torch.float32, {})
        weights |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    write_folder(folder / "net", weights)
    return folder


def write_folder(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Weights, and a configuration by which they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "FakeDiT"}))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "fake.safetensors")
