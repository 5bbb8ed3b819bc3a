"""Builds a training run from its options: the model, new or from weights, its task, and its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import torch

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.models.devices import has_native_bf16, pick_device
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import SPEC, VAE_FILE
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.runtime.validation import check_name
from pavdm_cli.training.batches import METHODS, BatchConfig
from pavdm_cli.training.levels import POCKET_STAGES, Diagonal
from pavdm_cli.training.loop import StepReport, Task, TrainConfig, train
from pavdm_cli.training.pocket.distillation import Teacher
from pavdm_cli.training.pocket.initial_weights import load_grown, new_denoiser
from pavdm_cli.training.pocket.latent_pool import Clips, Pool, load_or_encode
from pavdm_cli.training.pocket.oversampling import cumulative_weights, parse_factors
from pavdm_cli.training.pocket.tasks import HELD_OUT_SEED, DenoiserTask, VAETask
from pavdm_cli.training.pocket.vae import FrameSampling

M = TypeVar("M", PocketVAE, Pocket)
PRECISIONS = ("bf16", "fp32")
HELD_OUT = 128  # clips, at most
Progress = Callable[
    [str, int], AbstractContextManager[Callable[[int], None]]
]  # (label, total) -> callback with units done


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options that all training runs share."""

    folder: Path
    steps: int
    learning_rate: float
    batch_size: int
    detail: float = 0.3
    init: Path | None = None
    device: str = "auto"
    threads: int = 0
    sheet_minutes: float = 10.0
    precision: str | None = None  # of matmuls; None: the faster one

    def pick_precision(self) -> str:
        """bf16 or fp32; for None, bf16 where the device has it natively. Raises: UsageError."""
        if self.precision is None:
            return "bf16" if has_native_bf16(pick_device(self.device)) else "fp32"
        check_name("--precision", self.precision, PRECISIONS)
        return self.precision

    @property
    def metadata(self) -> dict[str, object]:
        """For the header of the weights."""
        names = ("steps", "learning_rate", "batch_size", "detail")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Objective:
    """What a denoiser is trained for: windows and noise levels of a method, optionally a guidance scale to distill."""

    method: str
    distill_guidance: float | None = None
    window: int | None = None  # latents; None: the method's
    shift: float = 1.0  # of timesteps towards noise
    object_weight: float = 0.0
    fill_batches: bool = False
    teacher: Path | None = None  # weights to distill; None: the initial weights
    max_context: int = 1  # largest number of clean chunks before a window
    oversample: Sequence[str] | None = None  # KIND=FACTOR, see `parse_factors`

    @property
    def metadata(self) -> dict[str, object]:
        """For the header of the weights: the method, and what is not at its default."""
        names = [field.name for field in fields(self) if field.name not in ("distill_guidance", "teacher")]
        changed = {name: getattr(self, name) for name in names}
        changed = {name: value for name, value in changed.items() if value and value != getattr(Objective(""), name)}
        return changed | ({} if self.distill_guidance is None else {"guided": self.distill_guidance})

    def check(self, clip_latents: int) -> None:
        """Reject unknown methods and options of another method. Raises: UsageError."""
        if self.method not in METHODS:
            names = ", ".join(METHODS)
            raise UsageError(f"--method must be one of {names}, got {self.method!r}", "pa is what pocket ships")
        parse_factors(self.oversample or ())
        if self.window is not None and self.method == "pa":
            raise UsageError("--window needs --method base or rw", "pa trains on windows of all lengths")
        if self.window is not None and self.window > clip_latents:
            raise UsageError(
                f"--window must be at most {clip_latents}, got {self.window}", "that is the length of the clips"
            )
        max_context = clip_latents // SPEC.chunk - SPEC.window // SPEC.chunk
        if self.max_context > max_context:
            hint = f"clips have {clip_latents} latents, a window {SPEC.window}, a chunk {SPEC.chunk}"
            raise UsageError(f"--context must be at most {max_context}, got {self.max_context}", hint)
        if self.max_context > 1 and self.method != "pa":
            raise UsageError("--context needs --method pa", "omit --context")
        if self.shift != 1 and self.method != "base":
            raise UsageError("--shift only applies to --method base", "omit --shift")
        if self.teacher is not None and self.distill_guidance is None:
            raise UsageError("--teacher needs --distill-guidance", "give the guidance scale to distill, such as 3.3")


def make_folder(folder: Path) -> None:
    """Create the folder of a run, once all options are checked. Raises: OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create the folder {folder}: {error.strerror}", "choose another --output-dir"
        ) from error


def run(task: Task, options: TrainOptions, report: StepReport) -> Path:
    """Train for all steps; returns the file of the weights."""
    config = TrainConfig(options.steps, options.learning_rate, sheet_seconds=60 * options.sheet_minutes)
    return train(task, config, options.folder, report)


def vae_task(options: TrainOptions, freeze_encoder: bool = False) -> VAETask:
    """Train the VAE on frames rendered on the fly; with `freeze_encoder` only its decoder. Raises: UsageError."""
    if freeze_encoder and not options.init:
        raise UsageError("--freeze-encoder needs a trained encoder", "give a vae.safetensors with --init")
    precision = options.pick_precision()
    model = _initial_model(_new_vae, options, checkpoint.load_vae)
    model.encoder.requires_grad_(not freeze_encoder)
    make_folder(options.folder)
    frames = FrameSampling(detail=options.detail, batch=options.batch_size)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return VAETask(model, frames, options.metadata, precision)


def denoiser_task(
    options: TrainOptions, objective: Objective, vae_file: Path | None, count: int, progress: Progress
) -> DenoiserTask:
    """Train the denoiser on clips that are rendered once and stored as latents. Raises: UsageError, ModelError."""
    objective.check(Clips().latents)
    precision = options.pick_precision()
    teacher = _teacher(options, objective)
    options = replace(options, init=options.init or objective.teacher)
    spec = SPEC
    vae = checkpoint.load_vae(vae_file or spec.folder / VAE_FILE).to(pick_device(options.device))
    model = _initial_model(lambda: new_denoiser(vae.config), options, lambda path: load_grown(path, vae.config))
    clips = Clips(count, detail=options.detail)
    held_out_clips = Clips(min(HELD_OUT, count), clips.latents, HELD_OUT_SEED, clips.size, clips.fps, clips.detail)
    metadata = options.metadata | objective.metadata | {"clips": count}
    make_folder(options.folder)
    needs_mask = bool(objective.object_weight)
    pool = _pool(options.folder / "clips.safetensors", clips, vae, progress, needs_mask)
    held_out = _pool(options.folder / "held-out.safetensors", held_out_clips, vae, progress)
    config, weight = _batch_config(objective, options.batch_size, clips), objective.object_weight
    return DenoiserTask(model, vae, config, clips, pool, held_out, metadata, teacher, weight, precision)


def _batch_config(objective: Objective, batch_size: int, clips: Clips) -> BatchConfig:
    return BatchConfig(
        objective.method,
        Diagonal(SPEC.trained_steps, SPEC.window // SPEC.chunk, SPEC.chunk),
        batch_size,
        timestep_shift=objective.shift,
        stages=POCKET_STAGES,
        latents=objective.window or 0,
        fill_batches=objective.fill_batches,
        max_context=objective.max_context,
        cumulative_weights=cumulative_weights(clips, parse_factors(objective.oversample or ())),
    )


def _teacher(options: TrainOptions, objective: Objective) -> Teacher | None:
    if objective.distill_guidance is None:
        return None
    path = objective.teacher or options.init
    if path is None:
        raise UsageError("--distill-guidance needs a teacher", "pass its weights with --teacher or --init")
    scale = checkpoint.training_metadata(path).get("guided", 1.0)
    if scale != 1:
        raise UsageError(
            f"{path} is already distilled, for a guidance scale of {scale:g}", "pass its teacher with --teacher"
        )
    return Teacher(checkpoint.load_denoiser(path).to(pick_device(options.device)), objective.distill_guidance)


def _pool(path: Path, clips: Clips, vae: PocketVAE, progress: Progress, needs_mask: bool = False) -> Pool:
    with progress(f"rendering {path.stem}", clips.count) as on_progress:
        return load_or_encode(path, clips, vae, on_progress, needs_mask)


def _new_vae() -> PocketVAE:
    return PocketVAE(PocketVAEConfig())


def _initial_model(build: Callable[[], M], options: TrainOptions, load: Callable[[Path], M]) -> M:
    """The weights of `init`, or deterministic new ones, trainable and on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU, where models are created
        model = _trainable_copy(load(options.init)) if options.init else build()
    return model.to(pick_device(options.device))


def _trainable_copy(frozen: M) -> M:
    """The same weights in a new model, trainable except for what is always frozen."""
    model = type(frozen)(frozen.config)
    model.load_state_dict(frozen.state_dict())
    return model
