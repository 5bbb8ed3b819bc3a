"""Estimates a video's memory by part and stage before anything is loaded, and suggests options that make it fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch

from pavdm_cli.errors import DeviceError, InvalidOutputError, PavdmError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import SIZES
from pavdm_cli.hub.weight_memory import free_bytes, gigabytes
from pavdm_cli.models import meta_model
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.meta_model import MemoryCase, SamplingMemory, VAEMemory, meta_runner, module_bytes
from pavdm_cli.models.offload import offloaded_bytes
from pavdm_cli.models.runner import ModelRunner, placement_for
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.diagnose import device_hint, first_line, is_out_of_memory

STAGES = ("read", "encode", "denoise", "decode")
PIXEL = 3 * torch.float32.itemsize  # bytes per pixel of a float32 frame
# For cuBLAS, cuDNN, Triton and the allocator: assumed, not measured.
SPARE = {"cuda": 500_000_000, "mps": 500_000_000, "cpu": 250_000_000}
# Bytes while the prompt is read, while given frames are encoded, while latents are denoised, while they are decoded.
Stages = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Memory of one device: use by part and stage, and free bytes."""

    device: torch.device
    free: int | None  # bytes; None where that cannot be known
    parts: dict[str, Stages]

    @property
    def needs(self) -> Stages:
        """All parts together."""
        read, encode, denoise, decode = (sum(column) for column in zip(*self.parts.values(), strict=True))
        return read, encode, denoise, decode

    def lacking(self) -> list[int]:
        """Indices of the stages that do not fit."""
        return [i for i, need in enumerate(self.needs) if self.free is not None and need > self.free]


@dataclass(frozen=True, slots=True)
class Budget:
    """A configuration and its memory use on each device."""

    config: GenerationConfig
    places: tuple[Place, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage fits on every device whose free memory is known."""
        return not any(place.lacking() for place in self.places)


def worth_telling(config: GenerationConfig) -> bool:
    """Whether memory must be planned: not for the bundled model, which always fits."""
    return not config.spec.bundled


def choose(config: GenerationConfig) -> Budget:
    """The fastest plan that fits, else the one that needs the least memory.

    Raises: ModelError.
    """
    for tried in _ways(config):
        found = budget(tried)
        if found.fits:
            break
    return found


def _ways(config: GenerationConfig) -> Iterator[GenerationConfig]:
    """Configurations of the same video from fastest to smallest; tiling comes last because it changes frames.

    Only switches left at `auto` vary.
    """

    def choices(name: str, least: str) -> tuple[str, ...]:
        value = getattr(config.execution, name)
        return (value, least) if name in config.open_switches and value != least else (value,)

    batching = choices("cfg_batching", "sequential") if config.guidance_scale != 1 else (config.execution.cfg_batching,)
    overlaps, tilings = choices("overlap_decode", "off"), choices("vae_tiling", "on")
    for tiling, cfg, overlap, most in product(tilings, batching, overlaps, (config.execution.decode_batch, 1)):
        yield config.with_execution(cfg_batching=cfg, overlap_decode=overlap, decode_batch=most, vae_tiling=tiling)


def budget(config: GenerationConfig) -> Budget:
    """Estimate the memory of a configuration."""
    device = config.device
    text_device, model = config.text_device, meta_model_of(config)
    counted = _count(model_key(config), shown_of(config))
    execution, coded = config.execution, (config.given, config.schedule.context * _reencodes(config))
    coding = _count_coding(model_key(config), execution.decode_batch, execution.vae_tiling, coded)
    here = {**running(model, counted, coding, execution, device), "libraries (assumed)": (SPARE[device.type],) * 4}
    host = waiting(model, execution) | {"given frames": (0, PIXEL * math.prod((config.given, *config.spec.size)), 0, 0)}
    reading = {f"text encoder, {part}": (size, 0, 0, 0) for part, size in text_bytes(config).items()}
    lies: dict[torch.device, dict[str, Stages]] = {device: {}}
    for where, parts in ((text_device, reading), (device, here), (HOST, host)):
        lies.setdefault(where, {}).update(parts)
    places = [_place(where, parts, encodes=any(coded)) for where, parts in lies.items()]
    return Budget(config, tuple(place for place in places if place.parts))


# Candidates often differ in one part only, so each part's estimate is cached.
_meta = lru_cache(meta_runner)
ModelKey = tuple[VideoModel, ModelSpec, str, str]  # model, its spec at the size of the video, device, precision


def model_key(config: GenerationConfig) -> ModelKey:
    """Cache key of a meta-device model."""
    return config.video_model, config.spec, config.execution.device, config.execution.precision


def _least(device: str, precision: str) -> ExecutionConfig:
    return ExecutionConfig(device=device, precision=precision, decode_batch=1)


def meta_model_of(config: GenerationConfig) -> ModelRunner:
    """The model on the meta device."""
    return _meta_model(*model_key(config))


def _meta_model(model: VideoModel, spec: ModelSpec, device: str, precision: str) -> ModelRunner:
    return _meta(model, spec, placement_for(_least(device, precision)))


def text_bytes(config: GenerationConfig) -> dict[str, int]:
    """Bytes to encode the prompts, by part; empty without a prompt."""
    if not config.prompt and not config.spec.empty_prompt:
        return {}
    placement = placement_for(_least(config.execution.device, config.execution.precision), config.text_device)
    encoder = config.video_model.load_text_encoder(placement, "meta")
    return max((encoder.memory_bytes(prompt.text) for prompt in config.prompts), key=lambda parts: sum(parts.values()))


@lru_cache
def _count(key: ModelKey, step: MemoryCase) -> SamplingMemory:
    return meta_model.estimate_sampling_memory(_meta_model(*key), step, torch.device(key[2]))


@lru_cache
def _count_coding(key: ModelKey, decode_batch: int, vae_tiling: str, coded: tuple[int, int]) -> VAEMemory:
    model, spec, device, precision = key
    execution = replace(_least(device, precision), decode_batch=decode_batch, vae_tiling=vae_tiling)
    return meta_model.estimate_vae_memory(_meta(model, spec, placement_for(execution)), torch.device(device), *coded)


def _reencodes(config: GenerationConfig) -> bool:
    """Whether latents are decoded and encoded again between steps."""
    return config.total_chunks > 1 and config.reencode


def _place(device: torch.device, parts: dict[str, Stages], encodes: bool) -> Place:
    """Memory of a device, without the encode stage if nothing is encoded."""
    shown = {name: (part[0], part[1] * encodes, part[2], part[3]) for name, part in parts.items()}
    return Place(device, free_bytes(device), {name: part for name, part in shown.items() if any(part)})


def shown_of(config: GenerationConfig) -> MemoryCase:
    """The largest step of a video, including re-noised chunks of a conditioning clip."""
    schedule, guided = config.schedule, config.guidance_scale
    latents = config.given_latents
    remade = schedule.num_renoised(latents)
    sizes = schedule.sizes(0, -remade, latents - remade * schedule.chunk, config.sampled_chunks)
    noisy, clean = max(sizes, key=lambda pair: (sum(pair), pair))
    graphs = "off" if config.uncapturable else config.execution.cuda_graphs
    execution = replace(config.execution, decode_batch=1, vae_tiling="off", offload="none", cuda_graphs=graphs)
    return MemoryCase(schedule, execution, guided, noisy, clean, config.solver, texts=2 if config.timeline else 1)


def running(
    model: ModelRunner, counted: SamplingMemory, coding: VAEMemory, execution: ExecutionConfig, device: torch.device
) -> dict[str, Stages]:
    """Memory on the model's device, by part."""
    whole, vae = module_bytes(model.transformer), module_bytes(model.vae)
    alone = execution.offload != "none"  # the VAE is onloaded for its stage
    transformer = whole - offloaded_bytes(model.model) if execution.offload == "sequential" else whole
    waits = 0 if execution.offload == "model" else transformer  # while the VAE works
    amid, beside = bool(coding.reencoding), execution.overlap_decode == "on"
    return {
        "transformer": (0, waits, transformer, waits),
        "text and levels": _from(counted.constants, amid),
        "context KV cache": _from(counted.kv_cache, amid),
        "activations of a step": (0, 0, counted.step, counted.step * beside),
        "CUDA graphs": _from(counted.graphs, amid),
        "VAE": (0, vae, 0 if alone else vae, vae),
        "activations of the VAE": (0, max(coding.encoding, coding.reencoding), 0, coding.decoding),
        # while decoding, a step or a re-encoding runs, whichever needs more
        "frames encoded again": (0, 0, 0, max(0, coding.reencoding - counted.step) * beside),
    }


def waiting(model: ModelRunner, execution: ExecutionConfig) -> dict[str, Stages]:
    """Offloaded weights on the host."""
    if execution.offload == "none":
        return {}
    sizes = (("transformer", module_bytes(model.transformer)), ("VAE", module_bytes(model.vae)))
    return {f"{name}, waiting": (0, size, size, size) for name, size in sizes}


def _from(size: int, amid: bool) -> Stages:
    """Memory held from the first step on; in the encode stage only if re-encoding happens between steps."""
    return 0, size * amid, size, size


def refusal(found: Budget) -> DeviceError:
    """The error for a video that does not fit, with options that would help and what they save."""
    place = next(place for place in found.places if place.lacking())
    stage = max(place.lacking(), key=lambda i: place.needs[i])
    name, size = max(((name, part[stage]) for name, part in place.parts.items()), key=lambda pair: pair[1])
    what = f"{found.config.spec.name} needs {gigabytes(place.needs[stage])} on {place.device.type} to {STAGES[stage]}"
    assert place.free is not None
    most = f"mostly {name}, {gigabytes(size)}"
    return DeviceError(f"{what} ({most}), but only {gigabytes(place.free)} is free", _advice(found))


def _advice(found: Budget) -> str:
    """A hint listing options that help; sufficient ones come first."""
    tried = [(option, choose(changed)) for option, changed in alternatives(found.config)]
    saving = [(after.fits, _saved(found, after), option) for option, after in tried]
    useful = sorted((row for row in saving if row[0] or row[1] > 0), key=lambda row: (not row[0], -row[1]))
    short = ", not enough on its own"
    said = [f"{option} saves {gigabytes(size)}{'' if fits else short}" for fits, size, option in useful]
    return "; ".join(said) or "no option makes it fit: it needs a larger device"


def alternatives(config: GenerationConfig) -> Iterator[tuple[str, GenerationConfig]]:
    """Options that take less memory, and the configuration with each."""
    execution, (height, width) = config.execution, config.spec.size
    elsewhere = any(option.key == "text_device" for option in config.video_model.options)
    if elsewhere and config.text_device.type != "cpu":
        yield "--text-device cpu", replace(config, options={**config.options, "text_device": "cpu"})
    for mode in ("model", "sequential"):
        if execution.offload == "none" or (execution.offload, mode) == ("model", "sequential"):
            yield _offloaded(config, mode)
    if execution.cfg_batching != "sequential" and config.guidance_scale != 1:
        yield "--cfg-batching sequential", config.with_execution(cfg_batching="sequential")
    if execution.overlap_decode == "on" and "overlap_decode" not in config.open_switches:
        yield "--overlap-decode off", config.with_execution(overlap_decode="off")
    if execution.context_cache == "reuse" and not config.spec.causal:
        yield "--context-cache recompute", config.with_execution(context_cache="recompute")
    for name, size in reversed(SIZES.items()):
        if config.spec.size_multiple and size[0] * size[1] < height * width:
            yield f"--size {name}", replace(config, spec=replace(config.spec, size=config.spec.nearest_size(size)))


def _offloaded(config: GenerationConfig, mode: str) -> tuple[str, GenerationConfig]:
    """With --offload, without the options that need weights to stay in place."""
    open_overlap = "overlap_decode" in config.open_switches
    pinning = [name for name in config.execution.pinning_options if not (open_overlap and "overlap" in name)]
    graphs = "auto" if config.execution.cuda_graphs == "on" else config.execution.cuda_graphs
    offloaded = config.with_execution(offload=mode, cuda_graphs=graphs, overlap_decode="off", compile=False)
    return f"--offload {mode}{''.join(f' without {name}' for name in pinning)}", offloaded


def _saved(before: Budget, after: Budget) -> int:
    """The largest saving of a change in any stage that does not fit."""
    now = {place.device.type: place.needs for place in after.places}
    pairs = [(place, i) for place in before.places for i in place.lacking()]
    return max(place.needs[i] - now.get(place.device.type, (0, 0, 0, 0))[i] for place, i in pairs)


@contextmanager
def told(config: GenerationConfig, kept: Callable[[], str] = lambda: "no frames were finished") -> Iterator[None]:
    """Convert out-of-memory and device failures to DeviceError; `kept` describes what was saved.

    Other errors are re-raised with that description as a note. Raises: DeviceError.
    """
    try:
        yield
    except InvalidOutputError as error:
        raise InvalidOutputError(f"{error.message}: {kept()}", error.hint) from None
    except PavdmError:
        raise
    except Exception as error:
        device = config.device.type
        if is_out_of_memory(error):
            options = ", ".join(option for option, _ in alternatives(config))
            raise DeviceError(f"{device} ran out of memory: {kept()}", f"try {options}") from error
        if advice := device_hint(error):
            raise DeviceError(f"{device} failed: {first_line(error)}: {kept()}", advice) from error
        error.add_note(kept())
        raise
