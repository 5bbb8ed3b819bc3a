"""Settings to a fine-tuning run: videos found and encoded, the transformer read and spread over the processes."""

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
from pavdm_cli.training.batches import METHODS, Recipe
from pavdm_cli.training.distributed import Processes, shard
from pavdm_cli.training.finetune.dataset import HINT, Captioned, LeftOut, captioned, summary
from pavdm_cli.training.finetune.encoding import (
    Cache,
    Footage,
    Form,
    clips_of,
    encode_captions,
    encode_clips,
    footage,
    missing_captions,
    missing_clips,
    survey,
    unlike,
)
from pavdm_cli.training.finetune.task import PRECISIONS, TuneTask, Tuning, Windows, forgetful
from pavdm_cli.training.levels import Diagonal
from pavdm_cli.training.loop import Plan, Report, train
from pavdm_cli.training.optimizer import gentle
from pavdm_cli.training.pocket.runs import Settings, make_folder

ROOM = "torchrun spreads the weights over several GPUs"
IN_ALL = 5  # times the weights: themselves, their gradients, two moments, their average


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a fine-tuning was asked for."""

    settings: Settings
    tuning: Tuning
    spec: ModelSpec
    method: str


@dataclass(frozen=True, slots=True)
class Talk:
    """How a run speaks: bars (of what, how many, of which kind), and lines that stand out."""

    progress: Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The videos that are trained on and those that judge, all encoded."""

    cache: Cache
    videos: list[Captioned]
    held_out: list[Captioned]


def tune_task(wanted: Wanted, talk: Talk, among: Processes) -> TuneTask:
    """Find and encode the videos, then read the transformer. Raises: PavdmError."""
    settings, tuning, method = wanted.settings, wanted.tuning, wanted.method
    spec, device, folder = tuning.spec(wanted.spec), pick_device(settings.device), home(wanted.spec)
    need_weights(wanted.spec)
    config = opensora.read_config(folder)  # what does not go together is refused before anything is encoded
    check_room("training", IN_ALL * weight_bytes(folder / "transformer", torch.float32) // among.count, device, ROOM)
    recipe = _recipe(spec, method, settings.batch, among)
    shelf = _shelf(Cache(settings.folder / "cache", *_marks(spec, folder, device)), tuning, talk, among)
    _encode(shelf, tuning, spec, device, talk, among)

    def seen(videos: list[Captioned]) -> Footage:
        return footage(shelf.cache, videos, lambda caption: wording(spec, caption, tuning.reading))

    about = settings.about | {"method": method, "size": spec.size, "fps": spec.fps, "videos": len(shelf.videos)}
    model = Windows(_stdit(folder, config, tuning, device), spec, PRECISIONS[tuning.precision])
    if among.count > 1:
        shard(model, model.stdit, device, tuning.precision == "bf16")
    return TuneTask(model, recipe, seen(shelf.videos), seen(shelf.held_out), folder.resolve(), about, among)


def tune(task: TuneTask, wanted: Wanted, report: Report) -> Path:
    """Train to the end of the settings' steps; returns the folder that `--model` takes."""
    settings, tuning = wanted.settings, wanted.tuning
    plan = Plan(
        settings.steps, settings.rate, min(tuning.warmup, settings.steps), average=0.99, every=tuning.every,
        accumulate=tuning.accumulate, build=gentle,
    )  # fmt: skip
    return train(task, plan, settings.folder, report, task.among)


def _recipe(spec: ModelSpec, method: str, windows: int, among: Processes) -> Recipe:
    if method not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}, got {method!r}", "pa is progressive")
    if windows % among.count:
        parts = f"a multiple of the {among.count} processes"
        raise UsageError(f"--batch must be {parts}, got {windows}", "each takes its part of every batch")
    diagonal = Diagonal(spec.trained_steps, spec.window // spec.chunk, spec.chunk)
    ratio = opensora.warp_ratio(*spec.size, spec.frames(spec.window + spec.chunk))
    return Recipe(method, diagonal, windows, wear=0.0, ratio=ratio, group=spec.group[0], causal=spec.causal)


def _marks(spec: ModelSpec, folder: Path, device: torch.device) -> tuple[Form, str]:
    """What latents and vectors depend on."""
    precision, frames = opensora.precision(device), spec.frames(spec.window + spec.chunk)
    codec = f"{digest(folder / 'vae')} {precision}"
    text = f"{reading_digest(folder / 'text_encoder')} {precision}"
    return Form(spec.size, spec.fps, frames, spec.latents(frames), codec), text


def _shelf(cache: Cache, tuning: Tuning, talk: Talk, among: Processes) -> Shelf:
    """Look into every video once, and say which are left out. Raises: InputError, UsageError."""
    found, left_out = captioned(tuning.data)
    if found:
        make_folder(cache.folder)
    mine = among.share(unlike(cache, [video.path for video in found]))
    with talk.progress("looking at", len(mine), "videos") as advance:
        for path in mine:
            survey(cache, path)
            advance(1)
    among.wait()
    seen = {video: survey(cache, video.path) for video in found}
    left_out += [LeftOut(video.path, one.refused) for video, one in seen.items() if not one.clips]
    usable = [video for video, one in seen.items() if one.clips]
    for line in summary(left_out, len(usable)):
        talk.tell(line)
    if not usable:
        raise InputError(f"no video in {tuning.data} can be trained on: {_why(left_out)}", HINT)
    slow = sum(seen[video].rate < 0.99 * cache.form.fps for video in usable)
    if slow:
        talk.tell(f"fewer than {cache.form.fps} frames/s in {slow} of them: frames repeat; --fps asks for fewer")
    return Shelf(cache, *_split(usable, tuning.held_out))


def _why(left_out: Sequence[LeftOut]) -> str:
    counts = Counter(one.reason.partition(":")[0] for one in left_out)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "there is none"


def _split(videos: list[Captioned], wanted: int | None) -> tuple[list[Captioned], list[Captioned]]:
    """Those to train on, and from ten on one in twenty, or as many as wanted, to judge with. Raises: UsageError."""
    count = (len(videos) // 20 or len(videos) >= 10) if wanted is None else wanted
    if count >= len(videos):
        raise UsageError(f"--held-out {count} of {pluralize(len(videos), 'video')} leaves none", "hold out fewer")
    judges = {videos[place * len(videos) // count].path for place in range(count)} if count else set()
    return [v for v in videos if v.path not in judges], [v for v in videos if v.path in judges]


def _encode(shelf: Shelf, tuning: Tuning, spec: ModelSpec, device: torch.device, talk: Talk, among: Processes) -> None:
    """Latents and vectors that are not there yet; the codec and the text encoder are gone afterwards."""
    cache, videos, folder = shelf.cache, shelf.videos + shelf.held_out, home(spec)
    wordings = sorted({wording(spec, video.caption, tuning.reading) for video in videos})
    clips = missing_clips(cache, among.share(clips_of(cache, unlike(cache, [video.path for video in videos]))))
    captions = missing_captions(cache, among.share(wordings))
    if clips:
        codec = _codec(folder / "vae", device)
        with talk.progress("encoding", len(clips), "clips") as advance:
            encode_clips(cache, codec, clips, advance)
        del codec
    if captions:
        read = T5Text(folder / "text_encoder", device, opensora.precision(device)).opened()
        with talk.progress("reading", len(captions), "captions") as advance:
            encode_captions(cache, read, captions, advance)
        del read
    if device.type == "cuda":
        torch.cuda.empty_cache()
    among.wait()


def _codec(folder: Path, device: torch.device) -> OpenSoraVAE:
    sizes = vae_config(shapes(tensors(folder)))
    return load_into(lambda: OpenSoraVAE(sizes), folder, device, opensora.precision(device))


def _stdit(folder: Path, config: STDiTConfig, tuning: Tuning, device: torch.device) -> STDiT:
    stdit = load_into(lambda: STDiT(config), folder / "transformer", device, torch.float32).requires_grad_(True)
    stdit.rope.requires_grad_(False)
    stdit.y_embedder.requires_grad_(False)  # as when Open-Sora was fine-tuned
    return forgetful(stdit) if tuning.checkpointing else stdit
