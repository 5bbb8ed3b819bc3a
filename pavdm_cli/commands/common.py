"""What all commands share: -h, --config, --quiet and --verbose, paths that are not empty, shell completion of names."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from copy import copy
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo, ParameterInfo

from pavdm_cli import ui
from pavdm_cli.commands import config
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.timeline import is_change
from pavdm_cli.models import registry
from pavdm_cli.models.spec import ModelOption

LONGEST_PROMPT = 100_000  # characters
CommandLineError: Any = typer.BadParameter.__base__  # of all that Typer refuses; it exports this subclass alone


def _quiet(value: bool) -> None:
    if value:
        ui.set_verbosity(ui.QUIET)


def _verbose(value: bool) -> None:
    if value:
        ui.set_verbosity(ui.VERBOSE)


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print nothing on standard error but errors.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_verbose, help="Print details of the run, and tracebacks of errors.")
]


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=config.use_files,
        help="TOML or YAML file of options, below flags and PAVDM_OPTION variables, above ./pavdm.toml and the user's.",
    ),
]


class Command(TyperCommand):
    """A command of `App`, whose options are also read from PAVDM_ variables and configuration files."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's."""
        return with_plain_switches(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's. Raises: UsageError for a wrong value, which names the file or the variable that it is from."""
        config.read_variables(ctx)
        try:
            takes_times = any("--at" in one.opts for one in self.get_params(ctx))
            rest = super().parse_args(ctx, join_times(args) if takes_times else args)
        except CommandLineError as error:
            if better := config.attributed_value(plain(error.message), getattr(error, "param", None), ctx):
                raise better from None
            raise
        except PavdmError as error:
            config.attribute(error, ctx)
            raise
        config.drop_alternatives(ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """As Typer's; errors name the file or the variable that a wrong value is from."""
        config.warn_of_variables(ctx.find_root().command)
        try:
            return super().invoke(ctx)
        except PavdmError as error:
            config.attribute(error, ctx)
            raise


def plain(message: str) -> str:
    """Typer's message without what pydantic, which checks values for it, says of itself."""
    message = message.replace(": Value error, ", ": ").replace(": Input should be ", ": it must be ")
    message = re.sub("^Value error, ", "", message).replace("Input should be ", "it must be ")
    return message.partition(", unable to parse")[0].rstrip(".")


class Group(TyperGroup):
    """A group of commands of `App`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's."""
        return with_plain_switches(super().get_params(ctx))


def with_plain_switches(parameters: list[Any]) -> list[Any]:
    """The parameters, of which switches show no type in the help: they take no value."""
    for one in parameters:
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return parameters


def join_times(words: Sequence[str]) -> list[str]:
    """The words, each `--at TIME PROMPT` of them as one, `--at=TIME: PROMPT`: Typer has no lists of pairs."""
    joined, index = list[str](), 0
    while index < len(words):
        option, *pair = words[index : index + 3]
        if option == "--":
            return [*joined, *words[index:]]
        if option == "--at" and len(pair) == 2 and not is_change(pair[0]) and not pair[1].startswith("-"):
            option, index = f"--at={pair[0]}: {pair[1]}", index + 2
        joined, index = [*joined, option], index + 1
    return joined


class App(typer.Typer):
    """A Typer app whose commands take -h, --config, --quiet and --verbose too."""

    def __init__(self, **options: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"]}
        super().__init__(no_args_is_help=True, context_settings=settings, **{"cls": Group} | options)

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As Typer's."""
        register = super().command(name, cls=Command, **options)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_shared_options(function))
            return function

        return add


SHARED = {"config": (Config, None), "quiet": (Quiet, False), "verbose": (Verbose, False)}


def with_shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --config, --quiet and --verbose, which act by their callbacks."""
    own = inspect.signature(function).parameters
    added = {name: hint for name, hint in SHARED.items() if name not in own}

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in added})

    hints = get_type_hints(function, include_extras=True) | {name: hint for name, (hint, _) in added.items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    new = [inspect.Parameter(name, keyword, default=default) for name, (_, default) in added.items()]
    parameters = [*own.values(), *new]
    hints |= {parameter.name: with_path_check(parameter.name, hints[parameter.name]) for parameter in parameters}
    typed = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    command.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
    command.__annotations__ = hints
    return command


def with_path_check(name: str, hint: Any) -> Any:
    """A parameter's annotation, which refuses an empty path where it takes a path."""
    value, *details = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    info = copy(next((one for one in details if isinstance(one, ParameterInfo)), None))
    if info is None or Path not in {value, *get_args(value)}:
        return hint
    if isinstance(info, OptionInfo):
        long = [word for word in info.param_decls or () if word.startswith("--")]
        info.parser = path_parser((*long, f"--{name.replace('_', '-')}")[0])
        info.metavar = info.metavar or "<path>"
    else:
        info.parser = path_parser(info.metavar or name.upper())
    return Annotated[value, info]


def path_parser(option: str) -> Callable[[str | Path], Path]:
    """The parser of an option's path: `Path` would take an empty one, as of an unset variable, for this folder."""

    def path(text: str | Path) -> Path:
        if not str(text):
            raise UsageError(f"{option} is an empty path", "give a file or folder; . is the current folder")
        return Path(text)

    return path


def with_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options that models add; it finds their values in its context's `params`."""
    added = registry.options()

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in added})

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
    typed = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    command.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
    command.__annotations__ = hints
    return command


def _by_model() -> list[tuple[str, ModelOption]]:
    """Every option that a model adds, with the name of the first model that does."""
    first: dict[str, tuple[str, ModelOption]] = {}
    for model in registry.all_models():
        first = {option.key: (model.spec.name, option) for option in model.options} | first
    return list(first.values())


def complete(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Completes an option's value among names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def check_quotes(context: typer.Context, prompt: str) -> None:
    """Refuse a prompt that a shell gave in parts, since it was not in quotes. Raises: UsageError."""
    if context.args:
        parts = [prompt, *context.args]
        raise UsageError(f"the prompt came in {len(parts)} parts", f'put it in quotes: "{" ".join(parts)}"')


def read_prompt(prompt: str) -> str:
    """The prompt, or what standard input holds for `-`, on one line. Raises: UsageError."""
    if prompt != "-":
        return prompt
    if sys.stdin.isatty():
        ui.note("type the prompt, then Ctrl-D on a line of its own")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is refused like any prompt that is none
    text = sys.stdin.read(LONGEST_PROMPT + 1)
    if len(text) > LONGEST_PROMPT:
        raise UsageError(f"the prompt on standard input has over {LONGEST_PROMPT} characters", "shorten it")
    return " ".join(text.split())


def typed(context: typer.Context) -> dict[str, str]:
    """The options that are on the command line, not left as they are by default, each with its panel in the help."""
    sources = [(one, context.get_parameter_source(one.name or "")) for one in context.command.params]
    said = [one for one, source in sources if source and source.name == "COMMANDLINE"]
    return {max(one.opts, key=len): getattr(one, "rich_help_panel", "") for one in said}


def check_model_options(context: typer.Context, model: str) -> None:
    """Name options on the command line that have no effect with the model; reset those from elsewhere.

    A configuration file may be shared by several models. Raises: UsageError where the video would be another one.
    """
    for line in refuse_options(model, typed(context)):
        ui.warn(line)
    for name in useless_options(model):
        if config.is_from_elsewhere(context, name):
            config.reset(context, name)


def refuse_options(model: str, flags: Container[str]) -> list[str]:
    """Notes on flags that have no effect with a model. Raises: UsageError where the video would be another one."""
    name, ignored = registry.find(model).spec.name, registry.find(model).spec.ignored
    notes = []
    for one in sorted(ignored, key=lambda one: not one.hint):
        if one.option in flags:
            message = f"{one.option} does nothing with {name}: {one.reason}"
            if one.hint:
                raise UsageError(message, one.hint)
            notes.append(message)
    for key in useless_options(model) - {one.option[2:].replace("-", "_") for one in ignored}:
        if f"--{key.replace('_', '-')}" in flags:
            raise UsageError(f"--{key.replace('_', '-')} is no option of {name}", "leave it out")
    return notes


def useless_options(model: str) -> set[str]:
    """Options that have no effect with a model, those of other models included, by their names in Python."""
    found = registry.find(model)
    ignored = {one.option[2:].replace("-", "_") for one in found.spec.ignored}
    return ignored | (registry.options().keys() - {option.key for option in found.options})
