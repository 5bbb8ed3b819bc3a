"""Shared by all commands: -h, --config, --quiet, --verbose, path checks and shell completion."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from pavdm_cli import ui
from pavdm_cli.commands import config, option_sources
from pavdm_cli.commands.signatures import with_path_check, with_signature
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.timeline import MAX_PROMPT_LENGTH, is_change
from pavdm_cli.models import registry
from pavdm_cli.models.spec import ModelOption

CommandLineError: Any = typer.BadParameter.__base__  # of Typer's usage errors; Typer exports only this subclass


def _set_quiet(value: bool) -> None:
    if value:
        ui.set_verbosity(ui.QUIET)


def _set_verbose(value: bool) -> None:
    if value:
        ui.set_verbosity(ui.VERBOSE)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Print only errors to standard error.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, help="Print details of the run and full tracebacks.")
]


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=config.load_config_files,
        help="TOML or YAML file of options. Precedence: flags, PAVDM_... environment variables, this file, "
        "./pavdm.toml, the user's file.",
    ),
]


class Command(TyperCommand):
    """A command of `App`, whose options are also read from PAVDM_ variables and configuration files."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, without the type of flags in the help."""
        return hide_flag_metavars(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises: UsageError for a wrong value, naming the file or variable that set it."""
        option_sources.set_variable_names(ctx)
        try:
            takes_times = any("--at" in option.opts for option in self.get_params(ctx))
            arguments = super().parse_args(ctx, join_at_pairs(args) if takes_times else args)
        except CommandLineError as error:
            if better := option_sources.error_with_source(
                simplify_message(error.message), getattr(error, "param", None), ctx
            ):
                raise better from None
            raise
        except PavdmError as error:
            option_sources.add_source(error, ctx)
            raise
        option_sources.resolve_exclusive_options(ctx)
        return arguments

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors name the file or the variable that a wrong value is from."""
        option_sources.warn_unknown_variables(ctx.find_root().command)
        try:
            return super().invoke(ctx)
        except PavdmError as error:
            option_sources.add_source(error, ctx)
            raise


def simplify_message(message: str) -> str:
    """Typer's message without pydantic's boilerplate."""
    message = message.replace(": Value error, ", ": ").replace(": Input should be ", ": it must be ")
    message = re.sub("^Value error, ", "", message).replace("Input should be ", "it must be ")
    return message.partition(", unable to parse")[0].rstrip(".")


class Group(TyperGroup):
    """A group of commands of `App`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, without the type of flags in the help."""
        return hide_flag_metavars(super().get_params(ctx))


def hide_flag_metavars(parameters: list[Any]) -> list[Any]:
    """Hide the type of boolean flags in the help."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def join_at_pairs(args: Sequence[str]) -> list[str]:
    """Rewrite each `--at TIME PROMPT` as `--at=TIME: PROMPT`, since Typer has no list of pairs."""
    arguments, index = list[str](), 0
    while index < len(args):
        option, *pair = args[index : index + 3]
        if option == "--":
            return [*arguments, *args[index:]]
        if option == "--at" and len(pair) == 2 and not is_change(pair[0]) and not pair[1].startswith("-"):
            option, index = f"--at={pair[0]}: {pair[1]}", index + 2
        arguments, index = [*arguments, option], index + 1
    return arguments


def join_lines(function: Callable[..., Any]) -> str:
    """The docstring with one line per paragraph, which the help wraps at any width."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class App(typer.Typer):
    """A Typer app whose commands also take -h, --config, --quiet and --verbose."""

    def __init__(self, **options: Any) -> None:
        context_settings = {"help_option_names": ["-h", "--help"]}
        super().__init__(no_args_is_help=True, context_settings=context_settings, **{"cls": Group} | options)

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command, with the shared options added."""
        register = super().command

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            typer_options = {"help": join_lines(function)} | options
            register(name, cls=Command, **typer_options)(with_shared_options(function))
            return function

        return add


SHARED = {"config": (Config, None), "quiet": (Quiet, False), "verbose": (Verbose, False)}


def with_shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --config, --quiet and --verbose, handled by their callbacks."""
    own_parameters = inspect.signature(function).parameters
    shared_options = {name: hint for name, hint in SHARED.items() if name not in own_parameters}

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in shared_options})

    hints = get_type_hints(function, include_extras=True) | {name: hint for name, (hint, _) in shared_options.items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    new = [inspect.Parameter(name, keyword, default=default) for name, (_, default) in shared_options.items()]
    parameters = [*own_parameters.values(), *new]
    hints |= {parameter.name: with_path_check(parameter.name, hints[parameter.name]) for parameter in parameters}
    return with_signature(command, parameters, hints)


def with_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the models' own options to a command; their values are in `ctx.params`."""
    model_options = registry.options()

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in model_options})

    parameters = list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function, include_extras=True)
    for panel, option in _by_model():
        flag = typer.Option(
            f"--{option.name}",
            help=option.help,
            rich_help_panel=panel,
            autocompletion=complete(option.choices) if option.choices else None,
        )
        default = registry.shared_default(option.key)
        hints[option.key] = Annotated[option.type if default == option.default else option.type | None, flag]
        parameters.append(inspect.Parameter(option.key, inspect.Parameter.KEYWORD_ONLY, default=default))
    return with_signature(command, parameters, hints)


def _by_model() -> list[tuple[str, ModelOption]]:
    """Every model option, with a panel that names the models that have it, options of the same models together."""
    options, families = dict[str, ModelOption](), dict[str, list[str]]()
    for model in registry.all_models():
        for option in model.options:
            options.setdefault(option.key, option)
            families.setdefault(option.key, []).append(re.split("[^a-z]", model.spec.name)[0])
    panels = {key: f"Models: {', '.join(sorted({*names}))}" for key, names in families.items()}
    return sorted(((panels[key], option) for key, option in options.items()), key=lambda pair: pair[0])


def complete(names: Iterable[str]) -> Callable[[str], list[str]]:
    """A shell completer for these names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def read_prompt(prompt: str, extra_arguments: Sequence[str] = ()) -> str:
    """The prompt, or standard input for `-`, joined to one line.

    extra_arguments: words that the shell split from an unquoted prompt. Raises: UsageError.
    """
    if extra_arguments:
        parts = [prompt, *extra_arguments]
        raise UsageError(
            f"the prompt is split into {len(parts)} words: it is not quoted", f'quote the prompt: "{" ".join(parts)}"'
        )
    if prompt != "-":
        return prompt
    if sys.stdin.isatty():
        ui.info("type the prompt, then press Ctrl-D on a new line")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # invalid UTF-8 is rejected later, like in any prompt
    text = sys.stdin.read(MAX_PROMPT_LENGTH + 1)
    if len(text) > MAX_PROMPT_LENGTH:
        raise UsageError(f"the prompt on standard input is longer than {MAX_PROMPT_LENGTH} characters", "shorten it")
    return " ".join(text.split())


def command_line_options(context: typer.Context) -> dict[str, str]:
    """Options set on the command line, and their help panels."""
    sources = [(option, context.get_parameter_source(option.name or "")) for option in context.command.params]
    on_command_line = [option for option, source in sources if source and source.name == "COMMANDLINE"]
    return {max(option.opts, key=len): getattr(option, "rich_help_panel", "") for option in on_command_line}


def check_model_options(context: typer.Context, model: str) -> None:
    """Warn about command-line options that the model ignores, and reset those from files or variables.

    A configuration file may be shared by several models. Raises: UsageError if ignoring one would change the video.
    """
    for line in check_ignored_options(model, command_line_options(context)):
        ui.note(line)
    for name in ignored_options(model):
        if option_sources.is_from_file_or_variable(context, name):
            option_sources.reset(context, name)


def check_ignored_options(model: str, flags: Container[str]) -> list[str]:
    """Notes on flags that have no effect with a model. Raises: UsageError if ignoring one would change the video."""
    name, spec_ignored = registry.find(model).spec.name, registry.find(model).spec.ignored
    notes = []
    for option in sorted(spec_ignored, key=lambda option: not option.hint):
        if option.flag in flags:
            message = f"{option.flag} has no effect with {name}: {option.reason}"
            if option.hint:
                raise UsageError(message, option.hint)
            notes.append(message)
    for key in ignored_options(model) - {option.key for option in spec_ignored}:
        if (flag := f"--{key.replace('_', '-')}") in flags:
            raise UsageError(f"{flag} is not an option of {name}", f"omit {flag}")
    return notes


def ignored_options(model: str) -> set[str]:
    """Parameter names of options that have no effect with a model."""
    video_model = registry.find(model)
    names = {option.key for option in video_model.spec.ignored}
    return names | (registry.options().keys() - {option.key for option in video_model.options})
