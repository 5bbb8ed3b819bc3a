"""Reads a jobs file into requests; every line is validated before the first video is rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from pavdm_cli import ui
from pavdm_cli.batch.job import Job, file_name
from pavdm_cli.batch.jobs_file import MAX_ROWS, Row, read_rows
from pavdm_cli.commands.common import (
    CommandLineError,
    check_ignored_options,
    command_line_options,
    ignored_options,
    simplify_message,
)
from pavdm_cli.commands.flags import request_from_params
from pavdm_cli.commands.option_sources import ALTERNATIVES, DISPLAY_OPTIONS, is_on_command_line
from pavdm_cli.commands.option_values import Option, check_value, command_options, suggest_name, suggest_option
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.checks import check
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.timeline import split_changes
from pavdm_cli.runtime.untrusted import InvalidError, parse_json, summarize

# Options that a job cannot have, and why.
NOT_IN_JOBS = dict.fromkeys(DISPLAY_OPTIONS, "an option of the command, not of individual jobs")
NOT_IN_JOBS |= {"stream_format": "without effect: a batch writes files"}
MAX_ERRORS_SHOWN = 50  # lines that are wrong


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of all jobs: the options of the command."""

    context: typer.Context
    options: Mapping[str, Option]  # of `generate`, by key
    values: Mapping[str, Any]  # by parameter


def read_jobs(context: typer.Context, path: Path) -> list[Job]:
    """All jobs of a file, each with its request. Raises: UsageError where a line is invalid, InputError."""
    rows, bad_lines = read_rows(path)
    errors = {line.line: line.reason for line in bad_lines}
    defaults, jobs = _defaults(context), list[Job]()
    for index, row in enumerate(rows, 1):
        try:
            jobs += _jobs_of(row, index, f"{path}:{row.line}", defaults)
        except PavdmError as error:
            errors[row.line] = error.as_line()
        if len(jobs) > MAX_ROWS:
            raise UsageError(f"{path} has more than {MAX_ROWS} videos", "split it, or lower -n")
    for job, duplicate in _duplicates(jobs):
        errors[_line(job)] = f"it writes to {job.name}, as does {duplicate.location}"
    elsewhere = context.params["engine"] == "ray"
    errors |= _config_errors([job for job in jobs if _line(job) not in errors], elsewhere)
    _reject_lines(errors, path, len(rows) + len(bad_lines))
    return jobs


def _defaults(context: typer.Context) -> Defaults:
    generate = context.find_root().command.commands["generate"]  # type: ignore[attr-defined]
    options = {key: option for key, option in command_options(generate).items() if key not in NOT_IN_JOBS}
    option_defaults = {option.name: option.parameter.default for option in options.values()}
    return Defaults(
        context, options, {name: context.params.get(name, value) for name, value in option_defaults.items()}
    )


def _jobs_of(row: Row, index: int, location: str, defaults: Defaults) -> Iterator[Job]:
    """A line's videos, one for each of its seeds. Raises: UsageError, ModelError."""
    job_values = dict(_values(row, defaults))
    values = dict(defaults.values) | job_values
    for group in ALTERNATIVES:
        if job_values.keys() & {*group}:
            values |= dict.fromkeys({*group} - job_values.keys())
    _check_model_options(values, job_values, defaults)
    prompt, first = " ".join((values["prompt"] or "").split()), values["seed"] or 0
    if not prompt:
        raise UsageError("the prompt is missing", "")
    for seed in range(first, first + values["count"]):
        request = request_from_params(values, prompt=prompt, seed=seed, path=None)
        if request.endless:
            raise UsageError("batch jobs cannot be endless", "set --seconds or --frames")
        check(request)
        yield Job(_name(values, index, request), location, request)


def _values(row: Row, defaults: Defaults) -> Iterator[tuple[str, Any]]:
    """The options of a line, by parameter. Raises: UsageError."""
    for key, text in row.values.items():
        option = defaults.options.get(key.replace("-", "_"))
        if option is None:
            fault = NOT_IN_JOBS.get(key.replace("-", "_"), "not a valid option")
            raise UsageError(f"{summarize(key)} is {fault}", suggest_option(key, defaults.options))
        value = _from_text(option, text) if row.is_text else text
        if value is None:  # JSON's null: as if it were left out
            continue
        result = check_value(option, value)
        if result.error:
            raise UsageError(f"{key} is {result.error}", suggest_name(value, option.choices))
        try:
            yield option.name, option.parameter.process_value(defaults.context, result.value)
        except CommandLineError as error:
            raise UsageError(f"{key}: {simplify_message(error.message)}", "") from None


def _from_text(option: Option, text: str) -> Any:
    """Convert a cell to its option's type; invalid text is returned unchanged."""
    if option.is_list:
        return split_changes(text) if option.is_timeline else text.split()
    if option.type not in (bool, int, float):
        return text.strip()
    try:
        return parse_json(text.strip().lower())
    except InvalidError:
        return text


def _check_model_options(values: dict[str, Any], job_values: Mapping[str, Any], defaults: Defaults) -> None:
    """Reject options of other models set by the line or command line; reset inherited ones."""
    flags = {f"--{key.replace('_', '-')}" for key, option in defaults.options.items() if option.name in job_values}
    check_ignored_options(values["model"], flags | command_line_options(defaults.context).keys())
    by_name = {option.name: option for option in defaults.options.values()}
    for name in ignored_options(values["model"]) & values.keys() - job_values.keys():
        if not is_on_command_line(defaults.context, by_name[name]):
            values[name] = by_name[name].parameter.default


def _name(values: Mapping[str, Any], index: int, request: Request) -> str:
    """The file of a job, in the folder of the batch. Raises: UsageError."""
    from pavdm_cli.video.paths import MAX_NAME_BYTES
    from pavdm_cli.video.write.output import SUFFIXES

    path = values["output"]
    if path is None:
        return file_name(index, request.prompt, request.seed)
    is_name = path.name == str(path) and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    is_name = is_name and not path.stem.endswith(".partial")  # the name of another video while it grows
    name = path.name if values["count"] == 1 else f"{path.stem}-{request.seed}{path.suffix}"
    if not is_name or len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES // 2:
        hint = f"use a file name such as boat.mp4 ({', '.join(SUFFIXES)})"
        raise UsageError(f"output is {summarize(str(path))}, not the name of a video in the folder", hint)
    return str(name)


def _duplicates(jobs: list[Job]) -> Iterator[tuple[Job, Job]]:
    first: dict[str, Job] = {}
    for job in jobs:
        first_job = first.setdefault(job.name.casefold(), job)  # some file systems are case-insensitive
        if first_job is not job:
            yield job, first_job


def _line(job: Job) -> int:
    return int(job.location.rpartition(":")[2])


def _config_errors(jobs: list[Job], elsewhere: bool) -> dict[int, str]:
    """Errors that need torch, the image or the weights to detect, by line; elsewhere: on other devices than here."""
    from pavdm_cli.batch.resources import for_any_device
    from pavdm_cli.generation import image_start
    from pavdm_cli.generation.resolve import resolve
    from pavdm_cli.hub.weights_dir import require_weights
    from pavdm_cli.video.io.image import read_image

    read_cached, errors = cache(read_image), {}
    for job in jobs:
        try:
            config = resolve(for_any_device(job.request) if elsewhere else job.request)
            require_weights(config.spec, True, config.video_model.published_spec)
            if job.request.image:
                image_start.notes(config, read_cached(job.request.image))
        except PavdmError as error:
            errors[_line(job)] = error.as_line()
    return errors


def _reject_lines(errors: Mapping[int, str], path: Path, total: int) -> None:
    """Print one line per error and raise UsageError."""
    if not errors:
        return
    if len({*errors.values()}) == 1 and len(errors) == total > 1:  # the error is in the command's options
        raise UsageError(f"no job can be rendered: {next(iter(errors.values()))}", "nothing was rendered")
    for line in sorted(errors)[:MAX_ERRORS_SHOWN]:
        ui.info(f"{path}:{line}: {errors[line]}", always=True)
    if len(errors) > MAX_ERRORS_SHOWN:
        ui.info(f"and {len(errors) - MAX_ERRORS_SHOWN} more", always=True)
    count = "1 line is invalid" if len(errors) == 1 else f"{len(errors)} lines are invalid"
    raise UsageError(f"{path}: {count}, nothing was rendered", "fix or remove them")
