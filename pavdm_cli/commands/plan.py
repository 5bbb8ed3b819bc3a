"""Memory and time estimates, printed before a video is generated or instead of it (`--plan`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pavdm_cli import ui
from pavdm_cli.generation.request import DEFAULT_SECONDS, Request
from pavdm_cli.models.registry import MODELS
from pavdm_cli.runtime.printable import format_estimate, truncate

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.memory_plan import MemoryPlan


SLOW_SECONDS, SLOW_RATIO = 3600, 100  # slower than both: no machine for this model
MODEL_DEFAULTS = ("steps", "window", "chunk", "context", "guidance", "solver", "warmup")  # size and fps are added below
EXECUTION = ("device", "threads", "precision", "attention", "context_cache")
RESIZABLE_EXECUTION = ("cfg_batching", "vae_tiling")  # of models whose size varies
# By key: an option's value, and the flag, the variable or the file that it is from.
OptionSources = Mapping[str, tuple[Any, str]]


def request_settings(request: Request, sources: OptionSources) -> dict[str, tuple[Any, str]]:
    """The sources, with the length, seed, enlarging, quality and file of a request that no option sets."""
    request_values: dict[str, tuple[Any, str]] = {
        "seed": (request.seed, "random"),
        "crf": (request.output.crf, "default"),
    }
    if not {"seconds", "frames"} & sources.keys():
        request_values["seconds"] = (DEFAULT_SECONDS, "default")
    if request.extension is None:
        request_values["scale"] = (request.output.resolve_scale(request.spec), f"default of {request.spec.name}")
    return {**request_values, "output": (request.output.path, "default"), **sources}


def settings_with_sources(config: GenerationConfig, sources: OptionSources) -> dict[str, tuple[str, str]]:
    """Every option that is set or is the model's default: (value, source)."""
    spec, default = config.spec, f"default of {config.spec.name}"
    default_values = {name: getattr(config, name) for name in MODEL_DEFAULTS}
    default_values |= {"size": f"{spec.size[1]}x{spec.size[0]}", "fps": spec.fps}
    default_settings = {name: (value, default) for name, value in default_values.items() if name not in sources}
    return {name: (str(value), source) for name, (value, source) in {**sources, **default_settings}.items()}


def execution_settings(config: GenerationConfig, sources: OptionSources) -> dict[str, tuple[str, str]]:
    """Switches that were resolved for this machine, with the attention backend that loading the model will choose."""
    from pavdm_cli.attention import Case, choose_backend, machine_of
    from pavdm_cli.generation.memory_plan import meta_model_of

    names = EXECUTION + RESIZABLE_EXECUTION * bool(config.spec.size_multiple)
    values = {name: str(getattr(config.execution, name)) for name in names}
    model = meta_model_of(config).model
    case = Case(machine_of(config.device), model.dtype, model.head_dim)
    values["attention"] = choose_backend(config.execution.attention, case).name
    open_names = [name for name in values if str(sources.get(name, ("auto", ""))[0]) in ("auto", "0")]
    return {name: (values[name], "this machine") for name in open_names}


def print_settings(config: GenerationConfig, sources: OptionSources) -> None:
    """Print where every value comes from, with --verbose."""
    for name, (value, source) in settings_with_sources(config, sources).items():
        ui.detail(f"{name} {value} ({source})")


def plan_and_report(config: GenerationConfig) -> GenerationConfig:
    """Print the memory table to stderr and return a configuration that fits.

    Raises: DeviceError if it does not fit.
    """
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.generation.memory_parts import STAGES
    from pavdm_cli.hub.weights_dir import require_weights

    _print_notes(config)
    if not memory_plan.needs_memory_plan(config):
        return config
    require_weights(config.spec, bool(config.prompt), config.video_model.published_spec)
    plan = memory_plan.choose_plan(config)
    ui.show_table("", ("memory", *STAGES), memory_report.format_rows(plan), to_stderr=True)
    return _require_fit(plan, config)


def print_plan(
    config: GenerationConfig,
    pixels: int,
    as_json: bool,
    count: int = 1,
    sources: OptionSources | None = None,
    endless: bool = False,
) -> None:
    """Print memory and time estimates to stdout.

    pixels: total number written; endless: the video has no end, and config and pixels are those of a minute.
    Raises: DeviceError.
    """
    from pavdm_cli.bench import estimate
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.generation.memory_parts import STAGES
    from pavdm_cli.hub.weights_dir import require_weights

    _print_notes(config)
    if config.spec.name not in MODELS and not config.spec.is_bundled:  # built-in: planned without weights
        require_weights(config.spec, bool(config.prompt), config.video_model.published_spec)
    plan = memory_plan.choose_plan(config)
    time, origins = estimate.estimate(plan.config, pixels), settings_with_sources(config, sources or {})
    origins |= execution_settings(plan.config, sources or {})
    if as_json:
        length = {"video_seconds": config.frames / config.spec.fps, "endless": endless}
        figures = {"videos": count, "time": estimate.figures(time) | length}
        figures["settings"] = {name: {"value": value, "source": source} for name, (value, source) in origins.items()}
        print(json.dumps(memory_report.plan_to_json(plan) | figures))
    else:
        ui.show_table("", ("memory", *STAGES), memory_report.format_rows(plan))
        basis = ", per minute of video" if endless else f", for each of {count} videos" if count > 1 else ""
        ui.show_table(f"\ntime (estimate{basis})", ("", ""), estimate.lines(time))
        rows = [(name, truncate(value), source) for name, (value, source) in origins.items()]
        ui.show_table("\nsettings", ("", "", "from"), rows)
    if time.total > max(SLOW_SECONDS, SLOW_RATIO * config.frames / config.spec.fps) and config.device.type == "cpu":
        subject = "a minute of video" if endless else "the video"
        ui.note(f"{config.spec.name} needs a GPU: on this CPU {subject} would take about {format_estimate(time.total)}")
    _require_fit(plan, config)


def _print_notes(config: GenerationConfig) -> None:
    from pavdm_cli.generation.advice import find_ineffective_options

    texts = [prompt.text for prompt in config.prompts] if config.prompt else []
    truncation_notes = [line for text in texts for line in config.video_model.truncation_notes(text)]
    for line in (*config.notes, *find_ineffective_options(config), *truncation_notes):
        ui.note(line)


def _require_fit(plan: MemoryPlan, config: GenerationConfig) -> GenerationConfig:
    """Return the plan's configuration and print what was changed; raise if it does not fit. Raises: DeviceError."""
    from pavdm_cli.generation import memory_advice, memory_report

    if not plan.fits:
        raise memory_advice.build_memory_error(plan)
    for line in memory_report.notes(config, plan.config):
        ui.info(line)
    return plan.config
