"""The Typer app, and the one place where a PavdmError becomes `error:`, `hint:` and an exit code."""

from __future__ import annotations

import os
import sys
from functools import partial
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from pavdm_cli import __version__
from pavdm_cli.commands import bench, models, train
from pavdm_cli.commands.doctor import doctor
from pavdm_cli.commands.extend import extend
from pavdm_cli.commands.generate import generate
from pavdm_cli.commands.info import info
from pavdm_cli.diagnose import diagnose, interrupted
from pavdm_cli.errors import PavdmError
from pavdm_cli.stop import INTERRUPTED

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.command(context_settings={"allow_extra_args": True})(generate)  # which says what is wrong with them
for command in (extend, info, doctor):
    app.command()(command)
for name, group in (("models", models.app), ("train", train.app), ("bench", bench.app)):
    app.add_typer(group, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pavdm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Long videos by progressive autoregressive video diffusion."""


def main() -> None:
    """The console script."""
    if isinstance(
        sys.stdout, TextIOWrapper
    ):  # a path is passed on byte by byte, and nothing is lost to a narrow locale
        utf_8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf_8 else "backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if interrupted(error):
            sys.exit(INTERRUPTED)
        if os.environ.get("PAVDM_TRACEBACK") and not isinstance(error, PavdmError):
            raise
        _fail(diagnose(error))


def _fail(error: PavdmError) -> NoReturn:
    """Say what is wrong and what would be right, once, and end with the error's exit code."""
    from pavdm_cli import ui

    train.once(error.message, partial(ui.fail, error.message, error.hint))
    sys.exit(error.exit_code)
