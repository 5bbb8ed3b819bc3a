"""What can be wrong with a request that needs neither torch, weights nor files: found before anything slow."""

from __future__ import annotations

import math
from dataclasses import replace

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import MOST_CONTEXT, Request, Sampling
from pavdm_cli.models.adapter import Prompt
from pavdm_cli.models.adapters import parse_adapter
from pavdm_cli.sampling.schedule import METHODS, Schedule, windows


def check(request: Request) -> None:
    """Refuse values that do not go together, and a prompt that the model cannot read. Raises: UsageError."""
    check_sampling(request.sampling)
    if request.prompt or request.extension is None:
        format_prompt(request.sampling, request.prompt)


def check_sampling(sampling: Sampling) -> None:
    """Refuse values of sampling that do not go together. Raises: UsageError."""
    schedule = schedule_of(sampling)
    guidance, edit = guidance_of(sampling), sampling.edit_ratio
    if not 0 <= guidance <= 100:
        raise UsageError(f"--guidance must be 0 to 100, got {guidance:g}", "1 is none; 3 degrades long videos")
    if sampling.engine.reuse_context and sampling.method == "rw":
        raise UsageError(
            "--context-cache reuse does not go with --method rw, which adds fresh noise to the overlap at every step",
            "leave --context-cache out, or use another method",
        )
    if not 0 <= edit < 1:
        raise UsageError(f"--edit-ratio must be 0 to below 1, got {edit:g}", "0 keeps what is shown as it is")
    for name, given in (("--edit-ratio", edit > 0), ("--reencode", bool(sampling.reencode))):
        if given and sampling.method != "rn":
            raise UsageError(
                f"{name} is for clip after clip, not {sampling.method}", "leave it out, or use --method rn"
            )
    _check_context(sampling)
    _check_reencoding(sampling, schedule)
    _check_options(sampling)


def _check_context(sampling: Sampling) -> None:
    """Refuse more than one clean chunk where it cannot be kept apart from the window. Raises: UsageError."""
    for name, count in (("--context", context_of(sampling)), ("--sink", sampling.sink)):
        if not 0 <= count <= MOST_CONTEXT:
            raise UsageError(f"{name} must be 0 to {MOST_CONTEXT} chunks, got {count}", "1 and 0 are what was trained")
    if context_of(sampling) <= 1 and not sampling.sink:
        return
    reasons = {
        f"{sampling.spec.name}, which was trained with bidirectional attention": not sampling.spec.causal,
        "--method rw, which adds noise to the context": sampling.method == "rw",
        "--edit-ratio, whose clips hold the context": sampling.edit_ratio > 0,
        "--ramp-up full and --method windows": sampling.ramp_up == "full" or sampling.method == "windows",
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        raise UsageError(f"more than one clean chunk does not go with {reason}", "leave out --context and --sink")


def format_prompt(sampling: Sampling, prompt: str, source: str = "") -> Prompt:
    """The prompt in the form of the model's training captions, and notes on what that changed.

    source: the caption of the video that is continued, if it has one. Raises: UsageError if the prompt cannot be read.
    """
    return sampling.video_model.format_prompt(prompt, sampling.seed, sampling.options, source)


def _check_options(sampling: Sampling) -> None:
    """Refuse options that are not the model's own, and values that it does not take. Raises: UsageError."""
    if sampling.lora and not sampling.spec.lora:
        raise UsageError(f"{sampling.spec.name} takes no --lora", "leave it out")
    for file in sampling.lora:
        parse_adapter(file)
    own = {option.key: option for option in sampling.video_model.options}
    for key, value in sampling.options.items():
        if key not in own:
            raise UsageError(f"--{key.replace('_', '-')} is no option of {sampling.spec.name}", "leave it out")
        own[key].check(value)


def schedule_of(sampling: Sampling) -> Schedule:
    """The schedule of the method, with the model's own values where none were given. Raises: UsageError."""
    methods = [name for name in METHODS if name != "one"]
    if sampling.method not in methods:
        raise UsageError(f"--method must be one of {', '.join(methods)}, got {sampling.method!r}", "pa is the default")
    counts, context = counts_of(sampling), context_of(sampling)
    if sampling.method == "windows":
        schedule = windows(**counts, context=context, stride=sampling.stride)
    elif sampling.stride:
        raise UsageError(f"--stride is for --method windows, not {sampling.method}", "leave it out")
    else:
        schedule = METHODS[sampling.method](**counts, context=context)
    if sampling.ramp_up == "full":
        schedule = replace(schedule, full_window=True)
    if context <= 1 and not sampling.sink:
        return schedule
    positions = counts["chunk"] if sampling.repeat_positions else None
    return replace(schedule, sink=range(sampling.sink), positions=positions)


def schedule_of_request(request: Request, warmup: int) -> Schedule:
    """The schedule from the video's beginning: its first chunk may be shorter, or given frames come before it.

    A model without context is shown the end of a clip that it continues as long as the window has room. A sink is the
    first chunks of the video, rather than those of the warm-up.
    """
    schedule, first = schedule_of(request.sampling), request.sampling.spec.first_chunk
    if not request.continues and not warmup and first < schedule.chunk:
        schedule = replace(schedule, first_chunk=first)
    if schedule.sink:
        return replace(schedule, sink=range(warmup, warmup + len(schedule.sink)))
    if not request.extension or schedule.context:
        return schedule
    if schedule.full_window:
        raise UsageError("--ramp-up full leaves no room for the input's end", "add --context 1, or leave it out")
    return replace(schedule, fill_to=schedule.window)


def counts_of(sampling: Sampling) -> dict[str, int]:
    """Steps, window and chunk: as given, else the model's own."""
    given = {"steps": sampling.steps, "window": sampling.window, "chunk": sampling.chunk}
    return {name: getattr(sampling.spec, name) if value is None else value for name, value in given.items()}


def context_of(sampling: Sampling) -> int:
    """Clean chunks in front of the window: as given, else the model's own number."""
    return sampling.spec.context if sampling.context is None else sampling.context


def guidance_of(sampling: Sampling) -> float:
    """As given, else the model's own."""
    return sampling.spec.guidance if sampling.guidance is None else sampling.guidance


def unit_of(sampling: Sampling) -> int:
    """Latents that the model's VAE encodes together."""
    spec = sampling.spec
    return sampling.video_model.layout(spec.size, spec.fps).unit


def warmup_of(sampling: Sampling) -> int:
    """Chunks of the warm-up of a video from noise, in whole units of the VAE so that the first frame begins one.

    The model's own number counts its own chunks. None where all of a window has one level: it does not fill up.
    """
    spec, asked, schedule = sampling.spec, sampling.warmup, schedule_of(sampling)
    own = -(-spec.warmup * spec.chunk // schedule.chunk) if schedule.capacity > 1 else 0
    whole = math.lcm(schedule.chunk, unit_of(sampling)) // schedule.chunk
    return -(-(own if asked is None else asked) // whole) * whole


def in_whole_units(sampling: Sampling, schedule: Schedule) -> bool:
    """Whether chunks and context are whole units of latents that the VAE encodes together."""
    unit = unit_of(sampling)
    return schedule.chunk % unit == 0 and schedule.context % unit == 0


def unit_reason(sampling: Sampling) -> str:
    """Why latents that are no whole units are not encoded again."""
    unit = unit_of(sampling)
    return f"{sampling.spec.name} encodes {unit} latents together: --window and --chunk must be multiples of {unit}"


def _check_reencoding(sampling: Sampling, schedule: Schedule) -> None:
    if sampling.reencode and schedule.context and not in_whole_units(sampling, schedule):
        unit = unit_of(sampling)
        raise UsageError(f"--reencode: {unit_reason(sampling)}", f"try --window {-(-schedule.chunk // unit) * unit}")
