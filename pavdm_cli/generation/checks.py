"""Validation of a request that needs no torch, weights or files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import MAX_CONTEXT, Request
from pavdm_cli.generation.timeline import check_timeline, format_seconds
from pavdm_cli.models.adapter import Prompt
from pavdm_cli.models.execution import ExecutionConfig, reject_graph_conflict
from pavdm_cli.models.lora_file import parse_lora
from pavdm_cli.runtime.printable import quote
from pavdm_cli.sampling.schedule import METHODS, Schedule, windows


def check(request: Request) -> None:
    """Reject incompatible options, and prompts that the model cannot parse. Raises: UsageError."""
    check_sampling(request)
    is_new = request.extension is None  # the length of a continuation follows from the rate of its video
    seconds = timeline_seconds(request) if is_new else None
    check_timeline(bool(request.prompt.strip()) or not is_new, request.timeline, request.blend, seconds)
    if request.prompt or is_new:
        check_loop_prompts(request, format_prompts(request))


def timeline_seconds(request: Request) -> float | None:
    """The length that prompt changes must be within; None for an endless video, also if it was stopped at a frame."""
    return None if request.forever else request.frame_count / request.spec.fps


def check_sampling(request: Request) -> None:
    """Reject incompatible sampling options. Raises: UsageError."""
    _check_context(request)
    schedule = build_schedule(request)
    guidance, edit_ratio = resolve_guidance(request), request.edit_ratio
    if not 0 <= guidance <= 100:
        raise UsageError(
            f"--guidance must be 0 to 100, got {guidance:g}", "1 disables guidance; high values degrade long videos"
        )
    if request.execution.context_cache == "reuse" and request.method == "rw":
        raise UsageError(
            "--context-cache reuse cannot be combined with --method rw, which re-noises the context at every step",
            "omit --context-cache, or use another method",
        )
    if not 0 <= edit_ratio < 1:
        raise UsageError(
            f"--edit-ratio must be at least 0 and below 1, got {edit_ratio:g}",
            "0 keeps the conditioning frames unchanged",
        )
    for name, is_set in (("--edit-ratio", edit_ratio > 0), ("--reencode", bool(request.reencode))):
        if is_set and request.method != "rn":
            raise UsageError(
                f"{name} only applies to --method rn, not {request.method}", f"omit {name}, or use --method rn"
            )
    if request.lora and not request.spec.lora:
        raise UsageError(f"{request.spec.name} does not support --lora", "omit --lora")
    if request.execution.compile and not request.spec.compile:
        raise UsageError(f"{request.spec.name} does not support --compile", "omit --compile")
    for file in request.lora:
        parse_lora(file)
    check_loop(request)
    if request.reencode and schedule.context and not aligns_with_vae_units(request, schedule):
        unit = vae_unit(request)
        raise UsageError(f"--reencode: {unit_reason(request)}", f"try --window {-(-schedule.chunk // unit) * unit}")
    reject_graph_conflict(request.execution.cuda_graphs, graph_conflict(edit_ratio, request.execution))
    _check_options(request)


def check_loop(request: Request) -> None:
    """Reject --loop where the end cannot be conditioned on the start. Raises: UsageError."""
    if not request.loop:
        return
    reasons = {
        f"--method {request.method}, which has no progressive noise levels": request.method != "pa",
        "--ramp-up full": request.ramp_up == "full",
        "--seconds forever": request.forever,
        "a video that starts from existing frames": request.starts_from_frames,
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        raise UsageError(f"--loop cannot be combined with {reason}", "omit --loop")


def check_loop_prompts(request: Request, prompts: Sequence[Prompt]) -> None:
    """Reject a loop that ends with another prompt than it begins: it would jump. Raises: UsageError."""
    if request.loop and prompts[-1].text != prompts[0].text:
        time, prompt = request.frame_count / request.spec.fps, quote(prompts[0].caption or request.prompt)
        message = (
            "--loop needs the first prompt again at the end: the loop would jump from the last prompt to the first"
        )
        raise UsageError(
            message, f"return to it some seconds before the end: --at TIME {prompt}, with TIME below {time:g}s"
        )


def _check_context(request: Request) -> None:
    """Reject a context of more than one chunk where the model or method does not support it. Raises: UsageError."""
    for name, count in (("the context", resolve_context(request)), ("the sink", resolve_sink(request))):
        if not 0 <= count <= MAX_CONTEXT:
            raise UsageError(
                f"{name} must be 0 to {MAX_CONTEXT} chunks, got {count}",
                "models were trained with a context of one chunk, and without a sink",
            )
    if resolve_context(request) <= 1 and not resolve_sink(request):
        return
    reasons = {
        f"{request.spec.name}, which was trained with bidirectional attention": not request.spec.causal,
        "--method rw, which adds noise to the context": request.method == "rw",
        "--edit-ratio, which denoises the context as part of every clip": request.edit_ratio > 0,
        "--ramp-up full": request.ramp_up == "full",
        "--method windows": request.method == "windows",
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        message = f"a context of several chunks, or a sink, cannot be combined with {reason}"
        raise UsageError(message, "use a context of one chunk, and no sink")


def graph_conflict(edit_ratio: float, execution: ExecutionConfig) -> str:
    """Like `ExecutionConfig.graph_conflict`, including sampling options."""
    return "--edit-ratio, which samples clips in its own loop" if edit_ratio else execution.graph_conflict


def check_forever(request: Request, path: Path | None, count: int = 1) -> None:
    """Reject options that an endless video cannot support. Raises: UsageError."""
    if not request.endless:
        return
    suffix = path.suffix.lower() if path else ""
    reasons = {
        f"-n {count}: the second video would never begin": count > 1,
        "GIF, which is written as a whole": suffix == ".gif",
        "--encoder, whose file cannot be continued": bool(request.output.encoder),
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        raise UsageError(f"--seconds forever cannot be combined with {reason}", "set a length, or omit that option")


def format_prompts(request: Request) -> tuple[Prompt, ...]:
    """Format every prompt like the model's training captions.

    Details that a later prompt omits are inherited from the previous caption. Raises: UsageError.
    """
    first = _format(request, request.prompt, request.source_caption)
    prompts = [first]
    for change in request.timeline:
        time = format_seconds(change.at)
        try:
            later = _format(request, change.prompt, prompts[-1].caption)
        except UsageError as error:
            raise UsageError(f"the prompt at {time}: {error.message}", error.hint) from None
        prompts.append(replace(later, notes=tuple(f"at {time}: {note}" for note in later.notes)))
    return tuple(prompts)


def _format(request: Request, prompt: str, source: str) -> Prompt:
    """Raises: UsageError."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'try "a red balloon drifting over green hills at sunset"')
    return request.video_model.format_prompt(prompt, request.seed, request.options, source)


def _check_options(request: Request) -> None:
    """Reject unknown model options and invalid values. Raises: UsageError."""
    model_options = {option.key: option for option in request.video_model.options}
    for key, value in request.options.items():
        if key not in model_options:
            flag = f"--{key.replace('_', '-')}"
            raise UsageError(f"{flag} is not an option of {request.spec.name}", f"omit {flag}")
        model_options[key].check(value)


def build_schedule(request: Request) -> Schedule:
    """The full schedule, including a shorter first chunk or frames that precede the video.

    Without a context, the end of an extended clip fills up the window while it grows. A sink is the
    first chunks of the video, rather than those of the warm-up. Raises: UsageError.
    """
    schedule = _base_schedule(request)
    warmup, first = _warmup_of(request, schedule), request.spec.first_chunk
    if not request.starts_from_frames and not warmup and first < schedule.chunk:
        schedule = replace(schedule, first_chunk=first)
    if schedule.sink:
        return replace(schedule, sink=range(warmup, warmup + len(schedule.sink)))
    if not request.extension or schedule.context:
        return schedule
    if schedule.full_window:
        raise UsageError(
            "--ramp-up full leaves no room in the window for the end of the input", "add --context 1, or omit --ramp-up"
        )
    return replace(schedule, fill_to=schedule.window)


def _base_schedule(request: Request) -> Schedule:
    """The method's schedule, with the model's defaults."""
    if request.method not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}, got {request.method!r}", "pa is the default")
    if request.stride and request.method != "windows":
        raise UsageError(f"--stride is for --method windows, not {request.method}", "omit --stride")
    counts, context = resolve_counts(request), resolve_context(request)
    if request.method == "windows":
        schedule = windows(**counts, context=context, stride=request.stride)
    else:
        schedule = METHODS[request.method](**counts, context=context)
    if request.ramp_up == "full":
        schedule = replace(schedule, full_window=True)
    sink = resolve_sink(request)
    if context <= 1 and not sink:
        return schedule
    positions = counts["chunk"] if request.repeat_positions else None
    return replace(schedule, sink=range(sink), positions=positions)


def resolve_context(request: Request) -> int:
    """Clean chunks right before the window: the request's, else the model's own number."""
    return request.spec.context if request.context is None else request.context


def resolve_sink(request: Request) -> int:
    """First chunks that stay in the context: the request's, else the model's own number with its own method."""
    if request.sink is not None:
        return request.sink
    has_defaults = request.method == request.spec.method and request.ramp_up == "grow" and not request.edit_ratio
    return request.spec.sink if has_defaults and request.spec.causal and resolve_context(request) else 0


def resolve_counts(request: Request) -> dict[str, int]:
    """Steps, window and chunk: the request's, else the model's own."""
    counts = {"steps": request.steps, "window": request.window, "chunk": request.chunk}
    return {name: getattr(request.spec, name) if value is None else value for name, value in counts.items()}


def resolve_guidance(request: Request) -> float:
    """The request's guidance, or the model's default."""
    return request.spec.guidance if request.guidance is None else request.guidance


def vae_unit(request: Request) -> int:
    """Latents that the model's VAE encodes together."""
    spec = request.spec
    return request.video_model.layout(spec.size, spec.fps).unit


def resolve_warmup(request: Request) -> int:
    """Number of warm-up chunks, rounded up to whole VAE units; 0 if the video starts from existing frames.

    The model's default is in chunks of its own size. 0 if the whole window has one level.
    """
    return _warmup_of(request, _base_schedule(request))


def _warmup_of(request: Request, schedule: Schedule) -> int:
    if request.starts_from_frames:
        return 0
    spec = request.spec
    default_chunks = -(-spec.warmup * spec.chunk // schedule.chunk) if schedule.capacity > 1 else 0
    chunks_per_unit = math.lcm(schedule.chunk, vae_unit(request)) // schedule.chunk
    return -(-(default_chunks if request.warmup is None else request.warmup) // chunks_per_unit) * chunks_per_unit


def aligns_with_vae_units(request: Request, schedule: Schedule) -> bool:
    """Whether chunks and context are whole units of latents that the VAE encodes together."""
    unit = vae_unit(request)
    return schedule.chunk % unit == 0 and schedule.context % unit == 0


def requests_reencoding(request: Request, schedule: Schedule) -> bool:
    """Whether the context of a clip is to be the re-encoded last frames of the previous one."""
    reencode = request.spec.reencodes if request.reencode is None else request.reencode
    return reencode and request.method == "rn" and schedule.context > 0


def unit_reason(request: Request) -> str:
    """Why partial VAE units cannot be re-encoded."""
    unit = vae_unit(request)
    return f"{request.spec.name} encodes {unit} latents together: --window and --chunk must be multiples of {unit}"
