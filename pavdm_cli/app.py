"""The Typer app, and the only place that turns a PavdmError into `error:` and `hint:` lines and an exit code."""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from pavdm_cli import __version__, ui
from pavdm_cli.commands import bench, evaluate, models, torchrun, train
from pavdm_cli.commands.batch import batch
from pavdm_cli.commands.common import App, CommandLineError, Quiet, Verbose, simplify_message
from pavdm_cli.commands.doctor import doctor
from pavdm_cli.commands.extend import extend
from pavdm_cli.commands.generate import generate
from pavdm_cli.commands.info import info
from pavdm_cli.commands.redo import redo
from pavdm_cli.commands.resume import resume
from pavdm_cli.commands.serve import serve
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.option_names import nearest_option
from pavdm_cli.runtime.diagnose import diagnose, find_interrupt
from pavdm_cli.runtime.interrupt import INTERRUPTED, interrupt_lines

app = App(pretty_exceptions_enable=False, rich_markup_mode="rich")
# `read_prompt` explains extra arguments: an unquoted prompt
app.command(context_settings={"allow_extra_args": True})(generate)
for command in (extend, redo, batch, resume, serve, info, doctor):
    app.command()(command)
for name, group in (("models", models.app), ("train", train.app), ("evaluate", evaluate.app), ("bench", bench.app)):
    app.add_typer(group, name=name)


def _version(value: bool) -> None:
    if value:
        print(f"pavdm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Long videos by progressive autoregressive video diffusion."""


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Print non-UTF-8 paths byte for byte, and escape what the locale cannot encode.
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    ui.set_verbosity(ui.NORMAL)
    try:
        if torchrun.is_worker(sys.argv):
            torchrun.work()
        code = app(prog_name="pavdm", standalone_mode=False)
        torchrun.dismiss_workers(sys.argv)
    except KeyboardInterrupt as interrupt:
        _exit_interrupted(interrupt)
    except Exception as error:
        if cause := find_interrupt(error):
            _exit_interrupted(cause)
        if os.environ.get("PAVDM_TRACEBACK") and not isinstance(error, PavdmError):
            raise
        _exit_with_error(_translate_typer_error(error) or diagnose(error), error)
    if code:
        sys.exit(code)


def _translate_typer_error(error: Exception) -> PavdmError | None:
    """Convert a Typer error to a PavdmError; None for any other exception."""
    if isinstance(error, typer.Abort):
        return PavdmError(ui.ABORTED)
    if not isinstance(error, CommandLineError):
        return None
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer has already printed the help
        sys.exit(UsageError.exit_code)
    path = context.command_path if context else "pavdm"
    if wrong_name := getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else "":
        hints = [_hint_for_option(wrong_name, context), f"`{path} --help` lists the options"]
        return UsageError(simplify_message(error.message), " ".join(filter(None, hints)))
    message = simplify_message(error.format_message())
    listed = "commands" if message.startswith(("No such command", "Missing command")) else "options"
    return UsageError(message, f"`{path} --help` lists the {listed}")


def _hint_for_option(wrong_name: str, context: Any) -> str:
    """What a wrong option stands for: an argument, or an option of another name; empty if that is unknown."""
    parameters = context.command.params if context else []
    for argument in (parameter for parameter in parameters if parameter.param_type_name == "argument"):
        metavar = argument.metavar or argument.name.upper()
        if wrong_name.lstrip("-").lower() == metavar.lower():
            return f"{metavar} is an argument: {context.command_path} {metavar}."
    names = (name for parameter in parameters for name in parameter.opts if name.startswith("--"))
    name = nearest_option(wrong_name.lstrip("-"), (name.removeprefix("--") for name in names))
    return f"did you mean --{name}?" if name else ""


def _exit_interrupted(interrupt: KeyboardInterrupt) -> NoReturn:
    """Print the interruption message and exit."""
    code = getattr(interrupt, "exit_code", INTERRUPTED)
    for descriptor, line in interrupt_lines(code).items():
        print(line, file=sys.stdout if descriptor == 1 else sys.stderr)
    torchrun.dismiss_workers(sys.argv)
    sys.exit(code)


def _exit_with_error(error: PavdmError, cause: Exception) -> NoReturn:
    """Print the error and its hint (once across torchrun processes) and exit."""

    def print_error() -> None:
        ui.fail(error.message, error.hint, cause)
        if "--json" in sys.argv:
            print(json.dumps({"error": error.as_dict()}))

    torchrun.report_error_once(error.message, print_error)
    torchrun.dismiss_workers(sys.argv)
    sys.exit(error.exit_code)
