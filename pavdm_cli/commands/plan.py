"""What a video would take in memory and time: told before it is made, or instead (`--plan`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pavdm_cli import ui
from pavdm_cli.models.registry import MODELS

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.memory_plan import Budget


def planned(config: GenerationConfig) -> GenerationConfig:
    """The configuration as memory allows, after a table of what it takes on stderr.

    Raises: DeviceError if it does not fit.
    """
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.hub.weights_dir import need_weights

    _print_notes(config)
    if not memory_plan.worth_telling(config):
        return config
    need_weights(config.spec, bool(config.prompt), config.video_model.published)
    found = memory_plan.choose(config)
    ui.show_table("", ("memory", *memory_plan.STAGES), memory_report.table(found), aside=True)
    return _fitting(found, config)


def print_plan(config: GenerationConfig, pixels: int, as_json: bool, count: int = 1) -> None:
    """What a video takes in memory and time, on stdout; pixels: of all frames written. Raises: DeviceError."""
    from pavdm_cli.bench import estimate
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.hub.weights_dir import need_weights

    _print_notes(config)
    if (
        config.spec.name not in MODELS and not config.spec.bundled
    ):  # by its name alone a model can be planned that is not there
        need_weights(config.spec, bool(config.prompt), config.video_model.published)
    found = memory_plan.choose(config)
    time = estimate.estimate(found.config, pixels)
    if as_json:
        print(json.dumps(memory_report.figures(found) | {"videos": count, "time": estimate.figures(time)}))
    else:
        ui.show_table("", ("memory", *memory_plan.STAGES), memory_report.table(found))
        title = "\ntime (estimate)" if count == 1 else f"\ntime (estimate, for each of {count} videos)"
        ui.show_table(title, ("", ""), estimate.lines(time))
    _fitting(found, config)


def _print_notes(config: GenerationConfig) -> None:
    from pavdm_cli.generation.advice import advice

    cut = config.video_model.prompt_notes(config.formatted_prompt.text) if config.prompt else []
    for line in (*config.notes, *advice(config), *cut):
        ui.warn(line)


def _fitting(found: Budget, config: GenerationConfig) -> GenerationConfig:
    """The configuration that fits, with notes on what was chosen for that. Raises: DeviceError."""
    from pavdm_cli.generation import memory_plan, memory_report

    if not found.fits:
        raise memory_plan.refusal(found)
    for line in memory_report.notes(config, found.config):
        ui.note(line)
    return found.config
