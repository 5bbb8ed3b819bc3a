"""The fine-tuning task: its configuration, model and loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pavdm_cli.attention import TORCH
from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import DenoiserConfig, LoadedModel, Options, TextEmbedding
from pavdm_cli.models.distributed import SINGLE_PROCESS, ProcessGroup, full_tensors
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.training.batches import BatchConfig, batch_rng, make_batch, sample_caption_dropout, sample_crop
from pavdm_cli.training.finetune.encoding import LatentDataset
from pavdm_cli.training.finetune.lora import export_adapters
from pavdm_cli.training.losses import Batch, add_noise, velocity_loss
from pavdm_kernels import use_reference

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
VALIDATION_BATCHES = 8


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """Options of fine-tuning; None: the model's default."""

    data: Path
    size: tuple[int, int] | None = None  # pixels, height and width
    fps: int | None = None
    window: int | None = None  # latents
    chunk: int | None = None
    precision: str = "bf16"
    gradient_checkpointing: bool = True
    gradient_accumulation: int = 1
    warmup: int = 1000
    checkpoint_every: int = 250  # steps
    validation_videos: int | None = None
    lora_rank: int = 0  # train low-rank adapters of this rank; 0: all weights
    options: Options = field(default_factory=dict)  # model-specific options

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision must be bf16 or fp32, got {self.precision!r}", "bf16 is the default")

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """The model spec with these options applied. Raises: UsageError."""
        size, fps = self.size or spec.size, self.fps or spec.fps
        spec.check_size(size)
        spec.check_fps(fps)
        window, chunk = self.window or spec.window, self.chunk or spec.chunk
        if window % chunk:
            raise UsageError(f"--window must be a multiple of --chunk {chunk}, got {window}", "the paper has 30 and 5")
        return replace(spec, size=size, fps=fps, window=window, chunk=chunk)


class LossModule(nn.Module):
    """The transformer and its loss as one module, because FSDP gathers weights around module calls."""

    def __init__(self, model: LoadedModel, spec: ModelSpec, dtype: torch.dtype, options: Options | None = None) -> None:
        super().__init__()
        self.options = options or {}
        self.transformer = model.transformer
        self.loaded, self.spec, self.dtype = model, spec, dtype

    def forward(self, batch: Batch, text: list[TextEmbedding], dropped: Tensor) -> Tensor:  # -> (B,)
        """Losses per sample; dropped (B,): samples whose caption is replaced by the unconditional embedding."""
        negative = [self.loaded.unconditional(embedding, text[0]) for embedding in text]
        pairs = zip(dropped.tolist(), text, negative, strict=True)
        inputs = [null if is_dropped else caption for is_dropped, caption, null in pairs]
        size, fps = self.spec.size, self.spec.fps
        config = DenoiserConfig(
            batch.context,
            size,
            fps,
            reuse_context=False,
            causal_context=True,
            attention=TORCH,
            options=self.options,
        )
        noisy = add_noise(batch.latents, batch.noise, batch.timesteps)
        timesteps = batch.timesteps.to(self.dtype)  # rounded as the trained weights will be
        return velocity_loss(self.loaded.velocity(noisy, timesteps, inputs, config, batch.context), batch)


def enable_gradient_checkpointing(model: LoadedModel) -> None:
    """Store only the inputs of blocks, and run them again in the backward pass."""
    for block in model.blocks:
        forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, early_stop=False)
        block.forward = forward


@dataclass(frozen=True, slots=True)
class FinetuneTask:
    """Trains on crops of encoded clips at the noise levels of a method; processes split each batch."""

    model: LossModule
    batches: BatchConfig
    dataset: LatentDataset
    held_out: LatentDataset
    metadata: dict[str, object]
    processes: ProcessGroup = SINGLE_PROCESS
    lora_rank: int = 0

    @property
    def name(self) -> str:
        """Includes what a checkpoint must match: method, size and frame rate; of a LoRA also rank and weights."""
        sizes = "x".join(str(side) for side in self.model.spec.size)
        kind = f"LoRA of rank {self.lora_rank} for {self.metadata['base']}" if self.lora_rank else "denoiser"
        return f"{kind} by method {self.batches.method} at {sizes} and {self.model.spec.fps} fps"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    def loss(self, step: int) -> Tensor:
        """The loss of this process's share of a batch."""
        return self._loss(self.batches, self.dataset, step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss on held-out videos, with the same crops and noise every time; empty without held-out videos."""
        if not self.held_out.clips:
            return {}
        config = replace(self.batches, seed=-1)
        with use_reference():  # the same operations as in training
            losses = [self._loss(config, self.held_out, step).item() for step in range(VALIDATION_BATCHES)]
        return {"held_out": self.processes.mean(sum(losses) / len(losses))}

    def write_sheet(self, path: Path) -> None:
        """Does nothing: the VAE is not in memory during training."""

    def export(self, folder: Path) -> Path:
        """Write the adapters, or all weights in the published layout and in the training precision."""
        if self.lora_rank:
            return export_adapters(self.model.transformer, folder, self.metadata, self.processes.is_main)
        weights = full_tensors(self.model.transformer.state_dict(), keep=self.processes.is_main)
        if self.processes.is_main:
            on_cpu = {name: value.detach().to("cpu", self.model.dtype) for name, value in weights.items()}
            contiguous = {name: value.contiguous() for name, value in on_cpu.items()}
            self.model.loaded.export(contiguous, folder / "model", self.metadata)
        return folder / "model"

    def _loss(self, config: BatchConfig, dataset: LatentDataset, step: int) -> Tensor:
        rng = batch_rng(config, step)
        crop = sample_crop(config, len(dataset.clips), dataset.length, rng)
        batch = make_batch(config, crop, dataset.latents(crop.ranges), rng)
        share = config.batch_size // self.processes.world_size
        local = slice(share * self.processes.rank, share * (self.processes.rank + 1))
        dropped = sample_caption_dropout(config.batch_size, rng)[local].to(self.device)
        text = dataset.embeddings(crop.clips[local], self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.model.dtype == torch.bfloat16):
            losses: Tensor = self.model(batch.select(local).to(self.device), text, dropped)
            return losses.mean()
