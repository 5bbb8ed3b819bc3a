"""`resolve` turns a request into a `GenerationConfig`; `auto` is decided here."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import (
    aligns_with_vae_units,
    build_schedule,
    check_loop_prompts,
    check_sampling,
    format_prompts,
    requests_reencoding,
    resolve_context,
    resolve_counts,
    resolve_guidance,
    resolve_sink,
    resolve_warmup,
    timeline_seconds,
    unit_reason,
)
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.implied_changes import with_implied_changes
from pavdm_cli.generation.request import ENDLESS_FRAMES, Request
from pavdm_cli.generation.seamless_loop import make_loop
from pavdm_cli.generation.timeline import check_reachable, check_timeline
from pavdm_cli.models.adapter import Prompt
from pavdm_cli.models.execution import VAE_BATCH_SIZE, ExecutionConfig
from pavdm_cli.sampling.schedule import Schedule

if TYPE_CHECKING:
    import torch

PLANNED_SWITCHES = ("cfg_batching", "overlap_decode", "vae_batch_size", "vae_tiling")  # what a memory plan may change
SETTLING_WINDOWS = 2  # windows after a prompt change until a chunk shows the new scene only


def resolve(request: Request) -> GenerationConfig:
    """Resolve everything that needs no weights, so that invalid values fail early. Raises: UsageError, DeviceError."""
    check_sampling(request)
    spec, schedule = request.spec, build_schedule(request)
    seconds = timeline_seconds(request)
    check_timeline(bool(request.prompt), request.timeline, request.blend if request.timeline else 0.0, seconds)
    request, changes = with_implied_changes(request, inf if seconds is None else seconds)
    check_timeline(bool(request.prompt), request.timeline, request.blend, seconds)
    execution = resolve_execution(request)
    prompts = format_prompts(request) if request.prompt or not request.extension else (Prompt(""),)
    check_loop_prompts(request, prompts)  # again, with the changes that prompts imply
    config = GenerationConfig(
        prompt=request.prompt,
        formatted_prompt=prompts[0],
        timeline=request.timeline,
        blend=request.blend,
        forever=request.forever,
        formatted_timeline=prompts[1:],
        video_model=request.video_model,
        spec=spec,
        schedule=schedule,
        execution=execution,
        seed=request.seed,
        frames=request.frame_count,
        method=request.method,
        **resolve_counts(request),
        context=resolve_context(request),
        ramp_up=request.ramp_up,
        stride=request.stride,
        solver=request.solver or request.spec.solver,
        guidance=resolve_guidance(request),
        warmup=resolve_warmup(request),
        reencode=requests_reencoding(request, schedule) and aligns_with_vae_units(request, schedule),
        edit_ratio=request.edit_ratio,
        loop=request.loop,
        sink=resolve_sink(request),
        repeat_positions=request.repeat_positions,
        lora=request.lora,
        source_caption=request.source_caption,
        options=_options(request),
        notes=(*_prompt_notes(request, prompts), *changes, *_notes(request, schedule, execution)),
        auto_switches=frozenset(name for name in PLANNED_SWITCHES if getattr(request.execution, name) in ("auto", 0)),
    )
    planned_config = replace(config, frames=ENDLESS_FRAMES) if request.forever else config
    chunks = range(config.warmup, planned_config.total_chunks)
    check_reachable(config.timeline, chunks, config.chunk_start)
    if schedule.sink and config.timeline:
        config = replace(config, schedule=replace(schedule, sink_changes=_sink_changes(config, chunks)))
    return make_loop(config) if request.loop else config


def _sink_changes(config: GenerationConfig, chunks: range) -> tuple[tuple[int, int], ...]:
    """A new sink for every new prompt: the first chunk after the transition to it, once the scene has settled."""

    def first_chunk(time: Fraction) -> int:
        return chunks.start + bisect_left(chunks, time, key=config.chunk_start)

    blend = Fraction(str(config.blend))
    changes = zip(config.timeline, pairwise(config.prompts), strict=True)
    times = [change.time for change, (before, after) in changes if before.text != after.text]
    return tuple((first_chunk(time), settled_chunk(config.schedule, first_chunk(time + blend))) for time in times)


def settled_chunk(schedule: Schedule, first: int) -> int:
    """The chunk that can be a sink where another scene begins with chunk `first`."""
    return first + SETTLING_WINDOWS * schedule.capacity


def resolve_execution(request: Request) -> ExecutionConfig:
    """Resolve `auto` in the execution switches to the fastest choice; a memory plan may change that later.

    Raises: UsageError, DeviceError.
    """
    import torch

    from pavdm_cli.attention import check_backend, machine_of
    from pavdm_cli.models.devices import pick_device

    switches, spec = request.execution, request.spec
    device = pick_device(switches.device)
    check_backend(switches.attention, machine_of(device))
    reuse = spec.causal if switches.context_cache == "auto" else switches.context_cache == "reuse"
    overlap_decode = device.type == "cuda" and switches.offload == "none"  # on a CPU, both would compete for cores
    return replace(
        switches,
        device=device.type,
        threads=switches.threads or torch.get_num_threads(),
        precision=_precision(request, device),
        context_cache="reuse" if reuse and request.method != "rw" else "recompute",
        cfg_batching="batched" if switches.cfg_batching == "auto" else switches.cfg_batching,
        vae_tiling="off" if switches.vae_tiling == "auto" else switches.vae_tiling,
        vae_batch_size=switches.vae_batch_size or VAE_BATCH_SIZE,
        overlap_decode=("on" if overlap_decode else "off")
        if switches.overlap_decode == "auto"
        else switches.overlap_decode,
    )


def _options(request: Request) -> dict[str, Any]:
    from pavdm_cli.models.devices import pick_device

    name = request.options.get("text_device")
    return {**request.options} | ({"text_device": pick_device(name, "--text-device").type} if name else {})


def _precision(request: Request, device: torch.device) -> str:
    precision, choices = request.execution.precision, request.spec.precisions_on(device.type)
    if precision not in ("auto", *choices):
        names = " or ".join(choices)
        raise UsageError(
            f"--precision of {request.spec.name} must be {names} here, got {precision!r}", "omit --precision"
        )
    return choices[0] if precision == "auto" else precision


def _prompt_notes(request: Request, prompts: tuple[Prompt, ...]) -> list[str]:
    if request.extension and not request.prompt:
        return ["no prompt: the continuation is unconditional; use --prompt to describe it"]
    return [note for prompt in prompts for note in prompt.notes]


def _notes(request: Request, schedule: Schedule, execution: ExecutionConfig) -> list[str]:
    spec = request.spec
    notes = [schedule.note] if schedule.note else []
    if requests_reencoding(request, schedule) and not aligns_with_vae_units(request, schedule):
        notes.append(f"clips are conditioned on latents without re-encoding: {unit_reason(request)}")
    if execution.compile:
        from pavdm_cli.models.torch_compile import NOTE

        notes.append(NOTE)
    if execution.context_cache == "reuse" and not spec.causal:
        notes.append(
            f"{spec.name} was trained with bidirectional attention: --context-cache reuse is an approximation; "
            "`pavdm bench throughput --context-cache reuse` measures its error"
        )
    if request.method != spec.method and spec.tuned:
        notes.append(f"{spec.name} was trained for {spec.method}; {request.method} is meant for comparison")
    return notes
