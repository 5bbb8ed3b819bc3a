"""What a video would take in memory and time: told before it is made, or instead (`--plan`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pavdm_cli import ui
from pavdm_cli.models.registry import MODELS

if TYPE_CHECKING:
    from pavdm_cli.generation.memory_plan import Budget
    from pavdm_cli.generation.pipeline import Job


def planned(job: Job) -> Job:
    """The job as its memory allows, after a table of what it takes on stderr.

    Raises: DeviceError if it does not fit.
    """
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.hub.weights_dir import need_weights

    _print_notes(job)
    if not memory_plan.worth_telling(job):
        return job
    need_weights(job.spec, bool(job.prompt), job.video_model.published)
    found = memory_plan.choose(job)
    ui.show_table("", ("memory", *memory_plan.STAGES), memory_report.table(found), aside=True)
    return _fitting(found, job)


def print_plan(job: Job, pixels: int, as_json: bool, count: int = 1) -> None:
    """What a video takes in memory and time, on stdout; pixels: of all frames written. Raises: DeviceError."""
    from pavdm_cli.bench import estimate
    from pavdm_cli.generation import memory_plan, memory_report
    from pavdm_cli.hub.weights_dir import need_weights

    _print_notes(job)
    if (
        job.spec.name not in MODELS and not job.spec.bundled
    ):  # by its name alone a model can be planned that is not there
        need_weights(job.spec, bool(job.prompt), job.video_model.published)
    found = memory_plan.choose(job)
    time = estimate.estimate(found.job, pixels)
    if as_json:
        print(json.dumps(memory_report.figures(found) | {"videos": count, "time": estimate.figures(time)}))
    else:
        ui.show_table("", ("memory", *memory_plan.STAGES), memory_report.table(found))
        title = "\ntime (estimate)" if count == 1 else f"\ntime (estimate, for each of {count} videos)"
        ui.show_table(title, ("", ""), estimate.lines(time))
    _fitting(found, job)


def _print_notes(job: Job) -> None:
    from pavdm_cli.generation.advice import advice

    cut = job.video_model.prompt_notes(job.formatted.text) if job.prompt else []
    for line in (*job.notes, *advice(job), *cut):
        ui.warn(line)


def _fitting(found: Budget, job: Job) -> Job:
    """The job as it fits, with notes on what was chosen for that. Raises: DeviceError."""
    from pavdm_cli.generation import memory_plan, memory_report

    if not found.fits:
        raise memory_plan.refusal(found)
    for line in memory_report.notes(job, found.job):
        ui.note(line)
    return found.job
