"""The libraries of the extra `opensora`: imported when they are needed, and kept quiet."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.runtime.install_hints import install_command

PACKAGES = ("transformers", "diffusers", "huggingface_hub", "sentencepiece", "ftfy", "beautifulsoup4")
MODULES = {"beautifulsoup4": "bs4"}  # where a package's module has another name


def check_installed() -> None:
    """Refuse to begin without all of them, before anything large is read; none is imported. Raises: ModelError."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(MODULES.get(name, name)) is None]:
        raise ModelError(f"Open-Sora needs {', '.join(missing)}", install_command("opensora"))


def library(module: str) -> Any:
    """A module of one of them. Raises: ModelError where it cannot be imported."""
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        check_installed()
        reason = str(error).partition("\n")[0]
        what = f"this needs {module.partition('.')[0]}, which does not load: {reason}"
        raise ModelError(what, install_command("opensora")) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged and no warning shown: what matters to a user is raised as an error instead."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
