"""Settings to a training run: the model, fresh or from weights, its task, and its folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.models.devices import pick_device
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import SPEC, VAE_FILE
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.training.batches import METHODS, BatchConfig
from pavdm_cli.training.levels import POCKET_STAGES, Diagonal
from pavdm_cli.training.loop import StepReport, Task, TrainConfig, train
from pavdm_cli.training.pocket.distillation import Teacher
from pavdm_cli.training.pocket.latent_pool import Clips, load_or_make
from pavdm_cli.training.pocket.tasks import HELD_OUT_SEED, CodecTask, DenoiserTask
from pavdm_cli.training.pocket.vae import Frames

M = TypeVar("M", PocketVAE, Pocket)
HELD_OUT = 128  # clips, at most
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]  # what, how many -> call with units done


@dataclass(frozen=True, slots=True)
class Settings:
    """What both trainings share."""

    folder: Path
    steps: int
    rate: float
    batch: int
    detail: float = 0.3
    init: Path | None = None
    device: str = "auto"
    threads: int = 0
    sheet_minutes: float = 10.0

    @property
    def about(self) -> dict[str, object]:
        """For the header of the weights."""
        return {"steps": self.steps, "rate": self.rate, "batch": self.batch, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a denoiser learns: the levels of a method, and the guidance to be given in one pass, if any."""

    method: str
    distil: float | None = None

    @property
    def about(self) -> dict[str, object]:
        """For the header of the weights."""
        return {"method": self.method} | ({} if self.distil is None else {"guided": self.distil})


def make_folder(folder: Path) -> None:
    """Where a run keeps what it makes; made when all that can be refused has been. Raises: OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", "give another --folder") from error


def run(task: Task, settings: Settings, report: StepReport) -> Path:
    """Train to the end of the settings' steps; returns the weights' file."""
    plan = TrainConfig(settings.steps, settings.rate, sheet_seconds=60 * settings.sheet_minutes)
    return train(task, plan, settings.folder, report)


def codec_task(settings: Settings, keep_latents: bool = False) -> CodecTask:
    """The codec, on frames painted as they are needed; with `keep_latents` its decoder alone. Raises: UsageError."""
    if keep_latents and not settings.init:
        raise UsageError("--keep-latents needs latents to keep", "give --init codec.safetensors")
    model = _start(_fresh_codec, settings, checkpoint.load_vae)
    model.encoder.requires_grad_(not keep_latents)
    make_folder(settings.folder)
    spec = SPEC
    frames = Frames(spec.size, settings.detail, settings.batch, spec.fps)
    return CodecTask(model.to(memory_format=torch.channels_last), frames, settings.about)  # type: ignore[call-overload]


def denoiser_task(
    settings: Settings, lesson: Lesson, codec: Path | None, count: int, progress: Progress
) -> DenoiserTask:
    """The denoiser, on clips rendered once and kept beside the run as latents. Raises: UsageError, ModelError."""
    if lesson.method not in METHODS:
        one_of = ", ".join(METHODS)
        raise UsageError(f"--method must be one of {one_of}, got {lesson.method!r}", "pa is what pocket ships")
    teacher = _teacher(settings, lesson)
    model = _start(_fresh_pocket, settings, checkpoint.load_denoiser)
    spec = SPEC
    coder = checkpoint.load_vae(codec or spec.folder / VAE_FILE).to(pick_device(settings.device))
    clips = Clips(count, size=spec.size, fps=spec.fps, detail=settings.detail)
    held = Clips(min(HELD_OUT, count), clips.latents, HELD_OUT_SEED, clips.size, clips.fps, clips.detail)
    diagonal = Diagonal(spec.trained_steps, spec.window // spec.chunk, spec.chunk)
    recipe = BatchConfig(lesson.method, diagonal, settings.batch, stages=POCKET_STAGES)
    about = settings.about | lesson.about | {"clips": count}
    make_folder(settings.folder)
    pool = _pool(settings.folder / "clips.safetensors", clips, coder, progress)
    held_out = _pool(settings.folder / "held-out.safetensors", held, coder, progress)
    return DenoiserTask(model, coder, recipe, clips, pool, held_out, about, teacher)


def _teacher(settings: Settings, lesson: Lesson) -> Teacher | None:
    if lesson.distil is None:
        return None
    if settings.init is None:
        raise UsageError("--distil needs a teacher", "give its weights with --init")
    given = checkpoint.training_metadata(settings.init).get("guided", 1.0)
    if given != 1:
        raise UsageError(f"{settings.init} gives guidance of {given:g} in one pass already", "start from its teacher")
    return Teacher(checkpoint.load_denoiser(settings.init).to(pick_device(settings.device)), lesson.distil)


def _pool(path: Path, clips: Clips, codec: PocketVAE, progress: Progress) -> Tensor:
    with progress(f"rendering {path.stem}", clips.count) as advance:
        return load_or_make(path, clips, codec, advance)


def _fresh_codec() -> PocketVAE:
    return PocketVAE(PocketVAEConfig())


def _fresh_pocket() -> Pocket:
    model = Pocket(PocketConfig())
    model.stdit.initialize_weights()
    return model


def _start(fresh: Callable[[], M], settings: Settings, load: Callable[[Path], M]) -> M:
    """Weights to start from, or new ones that are the same every time; ready to be trained, on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU, where models are made
        model = _thawed(load(settings.init)) if settings.init else fresh()
    return model.to(pick_device(settings.device))


def _thawed(given: M) -> M:
    """The same weights in a model that is frozen only where it always is."""
    model = type(given)(given.config)
    model.load_state_dict(given.state_dict())
    return model
