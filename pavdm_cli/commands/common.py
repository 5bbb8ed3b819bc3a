"""What all commands share: -h, --quiet and --verbose, and shell completion of names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from io import TextIOWrapper
from typing import Annotated, Any, get_type_hints

import typer

from pavdm_cli import ui
from pavdm_cli.errors import UsageError
from pavdm_cli.models.specs import find

LONGEST_PROMPT = 100_000  # characters


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


class App(typer.Typer):
    """A Typer app whose commands take -h, --quiet and --verbose too."""

    def __init__(self, **options: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"]}
        super().__init__(no_args_is_help=True, context_settings=settings, **options)

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As Typer's."""
        register = super().command(name, **options)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_verbosity(function))
            return function

        return add


def with_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --quiet and --verbose, which act by their callbacks."""

    @wraps(function)
    def command(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        return function(*arguments, **options)

    hints = get_type_hints(function, include_extras=True) | {"quiet": Quiet, "verbose": Verbose}
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=False) for name in ("quiet", "verbose")]
    parameters = [*inspect.signature(function).parameters.values(), *added]
    typed = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    command.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
    command.__annotations__ = hints
    return command


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


def heed(context: typer.Context, model: str) -> None:
    """Say which options on the command line the model does nothing with. Raises: UsageError where that matters."""
    spec = find(model)
    for one in sorted(spec.idle, key=lambda one: not one.instead):
        if one.option in typed(context):
            what = f"{one.option} does nothing with {spec.name}: {one.why}"
            if one.instead:
                raise UsageError(what, one.instead)
            ui.warn(what)
