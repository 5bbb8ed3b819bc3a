"""Prepare and run fine-tuning: find, encode and split videos, load and shard the transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.hub.checkpoint import digest, load_into, shapes, tensors
from pavdm_cli.hub.weight_memory import check_room, weight_bytes
from pavdm_cli.hub.weights_dir import home
from pavdm_cli.models.families import need_weights
from pavdm_cli.models.load import pick_device, wording
from pavdm_cli.models.opensora import config as opensora
from pavdm_cli.models.opensora.text_encoder import T5Text, reading_digest
from pavdm_cli.models.opensora.vae import OpenSoraVAE, vae_config
from pavdm_cli.models.specs import ModelSpec
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.training.batches import METHODS, BatchConfig
from pavdm_cli.training.distributed import ProcessGroup, shard_model
from pavdm_cli.training.finetune.dataset import HINT, Skipped, VideoItem, find_videos, summarize
from pavdm_cli.training.finetune.encoding import (
    Cache,
    LatentDataset,
    LatentFormat,
    captions_to_encode,
    clips_to_encode,
    encode_captions,
    encode_clips,
    list_clips,
    load_dataset,
    probe_video,
    unique_videos,
)
from pavdm_cli.training.finetune.task import (
    PRECISIONS,
    FinetuneConfig,
    FinetuneTask,
    LossModule,
    enable_gradient_checkpointing,
)
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.loop import StepReport, TrainConfig, train
from pavdm_cli.training.optimizer import adamw
from pavdm_cli.training.pocket.runs import Settings, make_folder

SHARDING_HINT = "torchrun shards the weights over several GPUs"
MEMORY_FACTOR = 5  # weights, gradients, two moments, EMA


@dataclass(frozen=True, slots=True)
class FinetuneJob:
    """The options of a fine-tuning run."""

    settings: Settings
    config: FinetuneConfig
    spec: ModelSpec
    method: str


@dataclass(frozen=True, slots=True)
class Reporter:
    """Callbacks: a progress bar (label, total, unit), and a warning."""

    progress: Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Split:
    """The videos for training and for validation."""

    cache: Cache
    videos: list[VideoItem]
    held_out: list[VideoItem]


def prepare_task(job: FinetuneJob, reporter: Reporter, processes: ProcessGroup) -> FinetuneTask:
    """Find and encode the videos, then load the transformer. Raises: PavdmError."""
    settings, config = job.settings, job.config
    spec, device, folder = config.spec(job.spec), pick_device(settings.device), home(job.spec)
    need_weights(job.spec)
    stdit_config = opensora.read_config(folder)  # options are checked before anything is encoded
    memory = MEMORY_FACTOR * weight_bytes(folder / "transformer", torch.float32) // processes.world_size
    check_room("training", memory, device, SHARDING_HINT)
    batches = _batch_config(spec, job.method, settings.batch, processes)
    cache = Cache(settings.folder / "cache", *_cache_keys(spec, folder, device))
    split = _find_and_split(cache, config, reporter, processes)
    _encode(split, config, spec, device, reporter, processes)

    def dataset(videos: list[VideoItem]) -> LatentDataset:
        return load_dataset(cache, videos, lambda caption: wording(spec, caption, config.reading))

    metadata = settings.about | {"method": job.method, "size": spec.size, "fps": spec.fps, "videos": len(split.videos)}
    model = LossModule(_load_stdit(folder, stdit_config, config, device), spec, PRECISIONS[config.precision])
    if processes.world_size > 1:
        shard_model(model, model.stdit, device, config.precision == "bf16")
    source, held_out = folder.resolve(), dataset(split.held_out)
    return FinetuneTask(model, batches, dataset(split.videos), held_out, source, metadata, processes)


def finetune(task: FinetuneTask, job: FinetuneJob, report: StepReport) -> Path:
    """Train until the configured number of steps; returns the folder for `--model`."""
    settings, config = job.settings, job.config
    train_config = TrainConfig(
        settings.steps,
        settings.rate,
        warmup=min(config.warmup, settings.steps),
        ema_decay=0.99,
        validate_steps=config.validate_steps,
        accumulate=config.accumulate,
        make_optimizers=adamw,
    )
    return train(task, train_config, settings.folder, report, task.processes)


def _batch_config(spec: ModelSpec, method: str, batch_size: int, processes: ProcessGroup) -> BatchConfig:
    if method not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}, got {method!r}", "pa is progressive")
    if batch_size % processes.world_size:
        multiple = f"a multiple of the {processes.world_size} processes"
        raise UsageError(f"--batch must be {multiple}, got {batch_size}", "each process takes its share of every batch")
    return BatchConfig(
        method,
        Diagonal(spec.trained_steps, spec.window // spec.chunk, spec.chunk),
        batch_size,
        noise_augmentation=0.0,
        warp_ratio=opensora.warp_ratio(*spec.size, spec.frames(spec.window + spec.chunk)),
        crop_multiple=spec.group[0],
        causal=spec.causal,
    )


def _cache_keys(spec: ModelSpec, folder: Path, device: torch.device) -> tuple[LatentFormat, str]:
    """What cached latents and caption embeddings depend on."""
    precision, frames = opensora.precision(device), spec.frames(spec.window + spec.chunk)
    vae = f"{digest(folder / 'vae')} {precision}"
    text_encoder = f"{reading_digest(folder / 'text_encoder')} {precision}"
    return LatentFormat(spec.size, spec.fps, frames, spec.latents(frames), vae), text_encoder


def _find_and_split(cache: Cache, config: FinetuneConfig, reporter: Reporter, processes: ProcessGroup) -> Split:
    """Probe every video once, and report which are skipped. Raises: InputError, UsageError."""
    videos, skipped = find_videos(config.data)
    if videos:
        make_folder(cache.folder)
    own = processes.shard(unique_videos(cache, [video.path for video in videos]))
    with reporter.progress("probing", len(own), "videos") as advance:
        for path in own:
            probe_video(cache, path)
            advance(1)
    processes.barrier()
    probes = {video: probe_video(cache, video.path) for video in videos}
    skipped += [Skipped(video.path, probe.error) for video, probe in probes.items() if not probe.clips]
    usable = [video for video, probe in probes.items() if probe.clips]
    for line in summarize(skipped, len(usable)):
        reporter.warn(line)
    if not usable:
        raise InputError(f"no video in {config.data} can be used for training: {_count_reasons(skipped)}", HINT)
    slow = sum(probes[video].rate < 0.99 * cache.format.fps for video in usable)
    if slow:
        reporter.warn(f"{slow} of them have fewer than {cache.format.fps} fps: frames repeat; lower --fps to avoid it")
    return Split(cache, *_hold_out(usable, config.held_out))


def _count_reasons(skipped: Sequence[Skipped]) -> str:
    counts = Counter(item.reason.partition(":")[0] for item in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "there is none"


def _hold_out(videos: list[VideoItem], count: int | None) -> tuple[list[VideoItem], list[VideoItem]]:
    """Videos for training and for validation: `count`, by default one in twenty from ten on. Raises: UsageError."""
    if count is None:
        count = len(videos) // 20 or int(len(videos) >= 10)
    if count >= len(videos):
        raise UsageError(f"--held-out {count} of {pluralize(len(videos), 'video')} leaves none", "hold out fewer")
    held_out = {videos[number * len(videos) // count].path for number in range(count)} if count else set()
    return [v for v in videos if v.path not in held_out], [v for v in videos if v.path in held_out]


def _encode(
    split: Split,
    config: FinetuneConfig,
    spec: ModelSpec,
    device: torch.device,
    reporter: Reporter,
    processes: ProcessGroup,
) -> None:
    """Encode what is not cached; the VAE and the text encoder are freed again."""
    cache, videos, folder = split.cache, split.videos + split.held_out, home(spec)
    all_clips = list_clips(cache, unique_videos(cache, [video.path for video in videos]))
    all_captions = sorted({wording(spec, video.caption, config.reading) for video in videos})
    clips = clips_to_encode(cache, processes.shard(all_clips))
    captions = captions_to_encode(cache, processes.shard(all_captions))
    if clips:
        vae = _load_vae(folder / "vae", device)
        with reporter.progress("encoding", len(clips), "clips") as advance:
            encode_clips(cache, vae, clips, advance)
        del vae
    if captions:
        encode = T5Text(folder / "text_encoder", device, opensora.precision(device)).opened()
        with reporter.progress("encoding", len(captions), "captions") as advance:
            encode_captions(cache, encode, captions, advance)
        del encode
    if device.type == "cuda":
        torch.cuda.empty_cache()
    processes.barrier()


def _load_vae(folder: Path, device: torch.device) -> OpenSoraVAE:
    sizes = vae_config(shapes(tensors(folder)))
    return load_into(lambda: OpenSoraVAE(sizes), folder, device, opensora.precision(device))


def _load_stdit(folder: Path, stdit_config: STDiTConfig, config: FinetuneConfig, device: torch.device) -> STDiT:
    stdit = load_into(lambda: STDiT(stdit_config), folder / "transformer", device, torch.float32).requires_grad_(True)
    stdit.rope.requires_grad_(False)
    stdit.y_embedder.requires_grad_(False)  # as in Open-Sora's own fine-tuning
    return enable_gradient_checkpointing(stdit) if config.checkpointing else stdit
