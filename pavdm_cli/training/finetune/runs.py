"""Prepare and run fine-tuning: find, encode and split videos, load and shard the transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.hub.weight_memory import check_room
from pavdm_cli.hub.weights_dir import require_weights
from pavdm_cli.models.adapter import LoadedModel, Placement, VideoModel
from pavdm_cli.models.devices import pick_device
from pavdm_cli.models.distributed import ProcessGroup, shard_model
from pavdm_cli.models.meta_model import module_bytes
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.training.batches import METHODS, BatchConfig
from pavdm_cli.training.finetune.dataset import HINT, Skipped, VideoItem, find_captioned_videos, summarize
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
from pavdm_cli.training.finetune.lora import adapter_bytes, add_adapters
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
from pavdm_cli.training.pocket.runs import TrainOptions, make_folder

SHARDING_HINT = "torchrun shards the weights over several GPUs"
MEMORY_FACTOR = 5  # weights, gradients, two moments, EMA


@dataclass(frozen=True, slots=True)
class FinetuneRun:
    """The options of a fine-tuning run."""

    options: TrainOptions
    config: FinetuneConfig
    model: VideoModel
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


def prepare_task(run: FinetuneRun, reporter: Reporter, processes: ProcessGroup) -> FinetuneTask:
    """Find and encode the videos, then load the transformer. Raises: PavdmError."""
    options, config, method, video_model = run.options, run.config, run.method, run.model
    spec, device = config.spec(video_model.spec), pick_device(options.device)
    if config.lora_rank and not video_model.spec.lora:
        raise UsageError(f"{spec.name} does not support LoRA", "omit --lora-rank to train all weights")
    if not video_model.spec.is_bundled:
        require_weights(video_model.spec, published=video_model.published_spec)
    meta = video_model.load(Placement(device), "meta")  # options are checked before anything is encoded
    check_room("training", _training_bytes(meta, config.lora_rank) // processes.world_size, device, SHARDING_HINT)
    batches = _batch_config(video_model, spec, method, options.batch_size, processes)
    encoding = _VideoEncoding(video_model, spec, config, device)
    cache = Cache(options.folder / "cache", *encoding.cache_keys())
    split = _find_and_split(cache, encoding, reporter, processes)
    _encode(split, encoding, reporter, processes)

    def dataset(videos: list[VideoItem]) -> LatentDataset:
        return load_dataset(cache, videos, encoding.format_caption)

    metadata = options.metadata | {"method": method, "size": spec.size, "fps": spec.fps, "videos": len(split.videos)}
    model = video_model.load(Placement(device, load_vae=False), "weights")
    if config.lora_rank:
        add_adapters(model, config.lora_rank)
        metadata["base"] = video_model.digest()
    else:
        model.unfreeze()
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    loss = LossModule(model, spec, PRECISIONS[config.precision], config.options)
    if processes.world_size > 1:
        shard_model(loss, model.shard_units, device, config.precision == "bf16")
    datasets = dataset(split.videos), dataset(split.held_out)
    return FinetuneTask(loss, batches, *datasets, metadata, processes, config.lora_rank)


def _training_bytes(model: LoadedModel, lora_rank: int) -> int:
    """Bytes of weights, gradients, moments and EMA."""
    weights = module_bytes(model.transformer)
    return weights + MEMORY_FACTOR * adapter_bytes(model, lora_rank) if lora_rank else MEMORY_FACTOR * weights


@dataclass(frozen=True, slots=True)
class _VideoEncoding:
    """How videos and captions become latents and embeddings."""

    model: VideoModel
    spec: ModelSpec
    config: FinetuneConfig
    device: torch.device

    @property
    def placement(self) -> Placement:
        """In the model's own precision, without its transformer."""
        return Placement(self.device, self.spec.precisions_on(self.device.type)[0], load_transformer=False)

    def format_caption(self, caption: str) -> str:
        """The caption as the text encoder gets it."""
        return self.model.format_prompt(caption, 0, self.config.options).text

    def is_usable(self, caption: str) -> bool:
        """Whether the model accepts a caption, and it is not empty once formatted."""
        try:
            return bool(self.format_caption(caption))
        except UsageError:
            return False

    def cache_keys(self) -> tuple[LatentFormat, str]:
        """What cached latents and caption embeddings depend on."""
        spec, model, precision = self.spec, self.model, self.placement.precision
        layout = model.layout(spec.size, spec.fps)
        frames = layout.num_frames(spec.window + spec.chunk)
        vae, text_encoder = (f"{model.part_digest(part)} {precision}" for part in ("vae", "text"))
        return LatentFormat(spec.size, spec.fps, frames, layout.num_latents(frames), vae), text_encoder


def finetune(task: FinetuneTask, run: FinetuneRun, report: StepReport) -> Path:
    """Train until the configured number of steps; returns the folder for `--model`."""
    options, config = run.options, run.config
    train_config = TrainConfig(
        options.steps,
        options.learning_rate,
        warmup=min(config.warmup, options.steps),
        ema_decay=0.99,
        validate_steps=config.checkpoint_every,
        gradient_accumulation=config.gradient_accumulation,
        make_optimizers=adamw,
    )
    return train(task, train_config, options.folder, report, task.processes)


def _batch_config(
    model: VideoModel, spec: ModelSpec, method: str, batch_size: int, processes: ProcessGroup
) -> BatchConfig:
    if method not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}, got {method!r}", "pa is progressive")
    if batch_size % processes.world_size:
        multiple = f"a multiple of the {processes.world_size} processes"
        raise UsageError(
            f"--batch-size must be {multiple}, got {batch_size}", "each process takes its share of every batch"
        )
    return BatchConfig(
        method,
        Diagonal(spec.trained_steps, spec.window // spec.chunk, spec.chunk),
        batch_size,
        noise_augmentation=0.0,
        timestep_shift=model.timestep_shift(spec.size, spec.window + spec.chunk),
        crop_multiple=model.layout(spec.size, spec.fps).unit,
        causal=spec.causal,
    )


def _find_and_split(cache: Cache, encoding: _VideoEncoding, reporter: Reporter, processes: ProcessGroup) -> Split:
    """Probe every video once, and report which are skipped. Raises: InputError, UsageError."""
    config = encoding.config
    videos, skipped = find_captioned_videos(config.data, encoding.is_usable)
    if videos:
        make_folder(cache.folder)
    local_videos = processes.shard(unique_videos(cache, [video.path for video in videos]))
    with reporter.progress("probing", len(local_videos), "videos") as on_progress:
        for path in local_videos:
            probe_video(cache, path)
            on_progress(1)
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
    return Split(cache, *_hold_out(usable, config.validation_videos))


def _count_reasons(skipped: Sequence[Skipped]) -> str:
    counts = Counter(item.reason.partition(":")[0] for item in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "there is none"


def _hold_out(videos: list[VideoItem], count: int | None) -> tuple[list[VideoItem], list[VideoItem]]:
    """Videos for training and for validation: `count`, by default one in twenty from ten on. Raises: UsageError."""
    if count is None:
        count = len(videos) // 20 or int(len(videos) >= 10)
    if count >= len(videos):
        raise UsageError(f"--validation-videos {count} leaves none of {len(videos)} to train on", "use fewer")
    held_out = {videos[number * len(videos) // count].path for number in range(count)} if count else set()
    return [v for v in videos if v.path not in held_out], [v for v in videos if v.path in held_out]


def _encode(split: Split, encoding: _VideoEncoding, reporter: Reporter, processes: ProcessGroup) -> None:
    """Encode what is not cached; the VAE and the text encoder are freed again."""
    cache, videos = split.cache, split.videos + split.held_out
    all_clips = list_clips(cache, unique_videos(cache, [video.path for video in videos]))
    all_captions = sorted({encoding.format_caption(video.caption) for video in videos})
    clips = clips_to_encode(cache, processes.shard(all_clips))
    captions = captions_to_encode(cache, processes.shard(all_captions))
    if clips:
        model = encoding.model.load(encoding.placement, "weights")
        with reporter.progress("encoding", len(clips), "clips") as on_progress:
            encode_clips(cache, lambda: model.encode_stream(encoding.model.spec), clips, on_progress)
        del model
    if captions:
        encoder = encoding.model.load_text_encoder(encoding.placement, "weights")
        with reporter.progress("encoding", len(captions), "captions") as on_progress:
            encode_captions(cache, encoder, captions, on_progress)
        del encoder
    if encoding.device.type == "cuda":
        torch.cuda.empty_cache()
    processes.barrier()
