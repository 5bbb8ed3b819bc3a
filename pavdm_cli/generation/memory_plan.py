"""What a job takes in memory, by part and stage, told before anything is loaded; and what would make it fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import torch

from pavdm_cli.errors import DeviceError, FaultyValues, PavdmError
from pavdm_cli.generation.pipeline import Job
from pavdm_cli.generation.reencode import reencodes
from pavdm_cli.generation.request import SIZES
from pavdm_cli.generation.settings import text_device_of
from pavdm_cli.hub.weight_memory import free_bytes, gigabytes
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.models.devices import HOST, pick_device
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.meta_model import Coding, Counted, MemoryCase, count, count_coding, meta_runner, weights_of
from pavdm_cli.models.offload import offloaded_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.runner import place as place_model
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.diagnose import device_hint, first_line, is_out_of_memory

STAGES = ("read", "encode", "denoise", "decode")
PIXEL = 3 * torch.float32.itemsize  # bytes, of a frame that waits for the codec
# What cuBLAS, cuDNN, Triton and the allocator keep for themselves; assumed, to be measured on a GPU.
SPARE = {"cuda": 500_000_000, "mps": 500_000_000, "cpu": 250_000_000}
# Bytes while the prompt is read, while given frames are encoded, while latents are denoised, while they are decoded.
Stages = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A memory: what lies there in each stage, by part, and what is free."""

    device: torch.device
    free: int | None  # bytes; None where that cannot be known
    parts: dict[str, Stages]

    @property
    def needs(self) -> Stages:
        """All parts together."""
        read, encode, denoise, decode = (sum(column) for column in zip(*self.parts.values(), strict=True))
        return read, encode, denoise, decode

    def lacking(self) -> list[int]:
        """The stages that do not fit."""
        return [i for i, need in enumerate(self.needs) if self.free is not None and need > self.free]


@dataclass(frozen=True, slots=True)
class Budget:
    """A job and the memory it takes, where it runs and on the host."""

    job: Job
    places: tuple[Place, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage has room everywhere, as far as is known."""
        return not any(place.lacking() for place in self.places)


def worth_telling(job: Job) -> bool:
    """Whether a job's memory is anything to think about: the bundled model fits everywhere."""
    return not job.spec.bundled


def choose(job: Job) -> Budget:
    """The job with guidance in one batch and pictures coded together as far as that fits; else the least there is.

    Raises: ModelError.
    """
    for tried in _ways(job):
        found = budget(tried)
        if found.fits:
            break
    return found


def _ways(job: Job) -> Iterator[Job]:
    """The same video, from the fastest way of making it to the one that takes least; tiles change it and come last."""
    engine, guided = job.sampling.engine, job.guidance_scale != 1
    batching = ("batched", "sequential") if engine.cfg_batching == "auto" and guided else (engine.cfg_batching,)
    beside = (engine.overlap_decode, "off") if engine.overlap_decode == "auto" else (engine.overlap_decode,)
    tilings = ("auto", "on") if engine.vae_tiling == "auto" else (engine.vae_tiling,)
    for tiling, one, at, most in product(tilings, batching, beside, (engine.pictures, 1)):
        yield with_engine(job, cfg_batching=one, overlap_decode=at, pictures=most, vae_tiling=tiling)


def with_engine(job: Job, **changed: Any) -> Job:
    """The job with other switches of its engine."""
    return replace(job, sampling=replace(job.sampling, engine=replace(job.sampling.engine, **changed)))


def budget(job: Job) -> Budget:
    """What a job takes, as it stands."""
    device = pick_device(job.sampling.device)
    text_device, model = text_device_of(job.sampling), meta_model_of(job)
    case = (job.video_model, job.spec, job.settings.precision)
    counted = _count(*case, shown_of(job), device)
    engine, coded = job.sampling.engine, (job.given, job.schedule.context * _reencodes(job))
    coding = _count_coding(*case, engine, device, coded)
    here = {**running(model, counted, coding, engine, device), "libraries (assumed)": _always(SPARE[device.type])}
    host = waiting(model, engine) | {"given frames": (0, PIXEL * math.prod((job.given, *job.spec.size)), 0, 0)}
    reading = {f"text encoder, {part}": (size, 0, 0, 0) for part, size in text_bytes(job).items()}
    lies: dict[torch.device, dict[str, Stages]] = {device: {}}
    for where, parts in ((text_device, reading), (device, here), (HOST, host)):
        lies.setdefault(where, {}).update(parts)
    places = [_place(where, parts, encodes=any(coded)) for where, parts in lies.items()]
    return Budget(job, tuple(place for place in places if place.parts))


# Ways and options are tried that differ in one part: each part is counted once.
_meta = lru_cache(meta_runner)
LEAST = Engine(pictures=1)


def meta_model_of(job: Job) -> ModelRunner:
    """The job's model without contents."""
    device = pick_device(job.sampling.device)
    return _meta(job.video_model, job.spec, place_model(device, LEAST, job.settings.precision))


def text_bytes(job: Job) -> dict[str, int]:
    """What encoding the job's prompt takes, by part; nothing where it was encoded before."""
    if not job.prompt and not job.spec.empty_prompt:
        return {}
    device = pick_device(job.sampling.device)
    placement = place_model(device, LEAST, job.settings.precision, text_device_of(job.sampling))
    return job.video_model.load_text_encoder(placement, "meta").memory(job.formatted.text)


@lru_cache
def _count(model: VideoModel, spec: ModelSpec, precision: str, case: MemoryCase, device: torch.device) -> Counted:
    return count(_meta(model, spec, place_model(device, LEAST, precision)), case, device)


@lru_cache
def _count_coding(
    model: VideoModel, spec: ModelSpec, precision: str, engine: Engine, device: torch.device, coded: tuple[int, int]
) -> Coding:
    engine = Engine(pictures=engine.pictures, vae_tiling=engine.vae_tiling)
    return count_coding(_meta(model, spec, place_model(device, engine, precision)), device, *coded)


def _reencodes(job: Job) -> bool:
    """Whether latents are decoded and encoded anew between steps."""
    return job.total_chunks > 1 and reencodes(job.sampling, job.schedule)


def _place(device: torch.device, parts: dict[str, Stages], encodes: bool) -> Place:
    """A place with the parts that lie there; without the stage of encoding, where nothing is encoded."""
    shown = {name: (part[0], part[1] * encodes, part[2], part[3]) for name, part in parts.items()}
    return Place(device, free_bytes(device), {name: part for name, part in shown.items() if any(part)})


def _always(size: int) -> Stages:
    return size, size, size, size


def shown_of(job: Job) -> MemoryCase:
    """The largest step of a job; the end of a clip that it begins with may be noised, as far as it goes."""
    schedule, guided = job.schedule, job.guidance_scale
    latents = job.given_latents
    remade = schedule.num_renoised(latents)
    sizes = schedule.sizes(0, -remade, latents - remade * schedule.chunk, job.total_chunks)
    noisy, clean = max(sizes, key=lambda pair: (sum(pair), pair))
    kept, asked = job.settings.context_cache == "reuse", job.sampling.engine
    graphs = "off" if job.sampling.unrecordable else asked.cuda_graphs
    engine = replace(asked, reuse_context=kept, pictures=1, vae_tiling="off", offload="none", cuda_graphs=graphs)
    return MemoryCase(schedule, engine, guided, noisy, clean, job.settings.solver)


def running(
    model: ModelRunner, counted: Counted, coding: Coding, engine: Engine, device: torch.device
) -> dict[str, Stages]:
    """What lies where the model runs."""
    whole, codec = weights_of(model.transformer), weights_of(model.vae)
    alone = engine.offload != "none"  # the codec's weights come for their stage
    transformer = whole - offloaded_bytes(model.model) if engine.offload == "sequential" else whole
    waits = 0 if engine.offload == "model" else transformer  # while the codec works
    amid, beside = bool(coding.reencoded), engine.overlaps_decode(device.type)
    return {
        "transformer": (0, waits, transformer, waits),
        "text and levels": _from(counted.constants, amid),
        "clean chunk": _from(counted.memory, amid),
        "activations of a step": (0, 0, counted.step, counted.step * beside),
        "CUDA graphs": _from(counted.graphs, amid),
        "codec": (0, codec, 0 if alone else codec, codec),
        "activations of the codec": (0, max(coding.given, coding.reencoded), 0, coding.decoding),
        # beside a decoding a step or an encoding is done, whichever takes more
        "frames encoded anew": (0, 0, 0, max(0, coding.reencoded - counted.step) * beside),
    }


def waiting(model: ModelRunner, engine: Engine) -> dict[str, Stages]:
    """What waits on the host for its turn."""
    if engine.offload == "none":
        return {}
    sizes = (("transformer", weights_of(model.transformer)), ("codec", weights_of(model.vae)))
    return {f"{name}, waiting": (0, size, size, size) for name, size in sizes}


def _from(size: int, amid: bool) -> Stages:
    """What lies there from the first step on: while frames are encoded only where that is amid the steps."""
    return 0, size * amid, size, size


def refusal(found: Budget) -> DeviceError:
    """Why a job does not fit, and the options that would change that, each with what it saves."""
    place = next(place for place in found.places if place.lacking())
    stage = max(place.lacking(), key=lambda i: place.needs[i])
    name, size = max(((name, part[stage]) for name, part in place.parts.items()), key=lambda pair: pair[1])
    what = f"{found.job.spec.name} needs {gigabytes(place.needs[stage])} on {place.device.type} to {STAGES[stage]}"
    assert place.free is not None
    most = f"most of it {name}, {gigabytes(size)}"
    return DeviceError(f"{what} ({most}), and {gigabytes(place.free)} are free", _advice(found))


def _advice(found: Budget) -> str:
    """The options that save something where it lacks; those that are enough alone come first."""
    tried = [(option, choose(changed)) for option, changed in alternatives(found.job)]
    saving = [(after.fits, _saved(found, after), option) for option, after in tried]
    useful = sorted((row for row in saving if row[0] or row[1] > 0), key=lambda row: (not row[0], -row[1]))
    said = [f"{option} saves {gigabytes(size)}{'' if fits else ', not enough alone'}" for fits, size, option in useful]
    return "; ".join(said) or "nothing that pavdm knows makes it fit here: it takes a larger device"


def alternatives(job: Job) -> Iterator[tuple[str, Job]]:
    """Options that take less memory, and the job with each."""
    asked, (height, width) = job.sampling, job.spec.size
    elsewhere = any(option.key == "text_device" for option in job.video_model.options)
    if elsewhere and text_device_of(asked).type != "cpu":
        options = {**asked.options, "text_device": "cpu"}
        yield "--text-device cpu", replace(job, sampling=replace(asked, options=options))
    for mode in ("model", "sequential"):
        if asked.engine.offload == "none" or (asked.engine.offload, mode) == ("model", "sequential"):
            without = "".join(f" without {name}" for name in asked.engine.fixed)
            yield f"--offload {mode}{without}", with_engine(job, offload=mode, **asked.engine.loosened)
    if asked.engine.cfg_batching != "sequential" and job.guidance_scale != 1:
        yield "--cfg-batching sequential", with_engine(job, cfg_batching="sequential")
    if asked.engine.overlap_decode == "on":
        yield "--overlap-decode off", with_engine(job, overlap_decode="off")
    if job.settings.context_cache == "reuse" and not job.spec.causal:
        yield "--context-cache recompute", replace(job, settings=replace(job.settings, context_cache="recompute"))
    for name, size in reversed(SIZES.items()):
        if job.spec.size_multiple and size[0] * size[1] < height * width:
            yield f"--size {name}", replace(job, spec=replace(job.spec, size=job.spec.fitting(size)))


def _saved(before: Budget, after: Budget) -> int:
    """The most that a change saves in any stage that lacks room."""
    now = {place.device.type: place.needs for place in after.places}
    pairs = [(place, i) for place in before.places for i in place.lacking()]
    return max(place.needs[i] - now.get(place.device.type, (0, 0, 0, 0))[i] for place, i in pairs)


@contextmanager
def told(job: Job, kept: Callable[[], str] = lambda: "nothing was finished") -> Iterator[None]:
    """Turns a lack of memory or the failure of a device into one line; `kept` says what is done.

    Any other error that is not ours goes on with that as a note. Raises: DeviceError.
    """
    try:
        yield
    except FaultyValues as error:
        raise FaultyValues(f"{error.message}: {kept()}", error.hint) from None
    except PavdmError:
        raise
    except Exception as error:
        device = pick_device(job.sampling.device).type
        if is_out_of_memory(error):
            options = ", ".join(option for option, _ in alternatives(job))
            raise DeviceError(f"{device} ran out of memory: {kept()}", f"these need less: {options}") from error
        if advice := device_hint(error):
            raise DeviceError(f"{device} failed: {first_line(error)}: {kept()}", advice) from error
        error.add_note(kept())
        raise
