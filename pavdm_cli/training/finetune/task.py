"""Fine-tuning Open-Sora on a folder of videos: what is asked for, and the task that the loop trains."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pavdm_cli.errors import UsageError
from pavdm_cli.models.execution import Reading
from pavdm_cli.models.opensora.export import publish
from pavdm_cli.models.specs import ModelSpec
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.training.batches import Recipe, draw_cut, draws, dropped, fill
from pavdm_cli.training.distributed import ALONE, Processes, gathered
from pavdm_cli.training.finetune.encoding import Footage
from pavdm_cli.training.losses import Batch, velocity_loss, window_velocity
from pavdm_kernels import use_reference

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
JUDGED = 8  # batches


@dataclass(frozen=True, slots=True)
class Tuning:
    """What fine-tuning is asked for beside what all training is; None: the model's own."""

    data: Path
    size: tuple[int, int] | None = None  # pixels, height and width
    fps: int | None = None
    window: int | None = None  # noisy latents
    chunk: int | None = None
    precision: str = "bf16"
    checkpointing: bool = True
    accumulate: int = 1
    warmup: int = 1000
    every: int = 250  # steps
    held_out: int | None = None  # videos
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision must be bf16 or fp32, got {self.precision!r}", "bf16 is the default")

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """The model as it will be trained. Raises: UsageError."""
        size, fps = self.size or spec.size, self.fps or spec.fps
        spec.check_size(size)
        spec.check_rate(fps)
        window, chunk = self.window or spec.window, self.chunk or spec.chunk
        if window % chunk:
            raise UsageError(f"--window must be a multiple of --chunk {chunk}, got {window}", "the paper has 30 and 5")
        return replace(spec, size=size, fps=fps, window=window, chunk=chunk)


class Windows(nn.Module):
    """The transformer and its loss as one call, since processes put weights together around calls."""

    def __init__(self, stdit: STDiT, spec: ModelSpec, rounded: torch.dtype) -> None:
        super().__init__()
        self.stdit, self.fps, self.size, self.rounded = stdit, spec.fps, spec.size, rounded

    def forward(self, batch: Batch, y: Tensor, shown: Tensor, without: Tensor) -> Tensor:  # -> (B,)
        """Losses; captions y (B, L, width) under a mask (B, L), the null embedding in place of those left out (B,)."""
        null = self.stdit.y_embedder.y_embedding[: y.shape[1]].to(y)
        text = self.stdit.encode_text(torch.where(without[:, None, None], null, y), shown)
        fps = torch.tensor(float(self.fps), device=y.device)
        return velocity_loss(window_velocity(self.stdit, text, batch, fps, self.size, self.rounded), batch)


def forgetful(stdit: STDiT) -> STDiT:
    """Every block keeps its input alone, and runs again in the backward pass: gradient checkpointing."""
    for block in stdit.blocks:
        again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, early_stop=False)
        block.forward = again  # type: ignore[method-assign]
    return stdit


@dataclass(frozen=True, slots=True)
class TuneTask:
    """Windows of a folder's clips at the noise levels of a method; of several processes each takes some of a batch."""

    model: Windows
    recipe: Recipe
    footage: Footage
    held_out: Footage
    source: Path  # the folder trained from
    about: dict[str, object]
    among: Processes = ALONE

    @property
    def name(self) -> str:
        """The method is part of it, and so are the sizes that a window has."""
        sizes = "x".join(str(side) for side in self.model.size)
        return f"Open-Sora denoiser by method {self.recipe.method} at {sizes} and {self.model.fps} frames/s"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def loss(self, step: int) -> Tensor:
        """This process' part of a batch."""
        return self._loss(self.recipe, self.footage, step)

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Mean loss on clips of other videos, the same windows and noise every time; nothing where there are none."""
        if not self.held_out.clips:
            return {}
        other = replace(self.recipe, seed=-1)
        with use_reference():  # the operations that training differentiates
            rows = [self._loss(other, self.held_out, step).item() for step in range(JUDGED)]
        return {"held_out": self.among.mean(sum(rows) / len(rows))}

    def sheet(self, path: Path) -> None:
        """None: the codec that could show one is out of memory by now."""

    def export(self, folder: Path) -> Path:
        """The weights in the published layout, in the precision they were trained for; all processes call it."""
        weights = gathered(self.model.stdit.state_dict(), keep=self.among.first)
        if self.among.first:
            moved = {name: value.detach().to("cpu", self.model.rounded) for name, value in weights.items()}
            publish({n: value.contiguous() for n, value in moved.items()}, self.source, folder / "model", self.about)
        return folder / "model"

    def _loss(self, recipe: Recipe, footage: Footage, step: int) -> Tensor:
        chance = draws(recipe, step)
        cut = draw_cut(recipe, len(footage.clips), footage.length, chance)
        batch = fill(recipe, cut, footage.latents(cut.runs), chance)
        each = recipe.windows // self.among.count
        mine = slice(each * self.among.rank, each * (self.among.rank + 1))
        without = dropped(recipe.windows, chance)[mine].to(self.device)
        y, shown = footage.vectors(cut.clips[mine])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.model.rounded == torch.bfloat16):
            y, shown = y.to(self.device, torch.float32), shown.to(self.device)
            losses: Tensor = self.model(batch.rows(mine).to(self.device), y, shown, without)
            return losses.mean()
