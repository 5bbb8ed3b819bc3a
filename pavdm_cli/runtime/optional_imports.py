"""The libraries of the extra `opensora`: imported on demand, without their logs and warnings."""

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
MODULES = {"beautifulsoup4": "bs4"}  # modules whose name differs from the package's


def check_installed() -> None:
    """Check that all of them are installed, without importing any. Raises: ModelError."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(MODULES.get(name, name)) is None]:
        raise ModelError(f"Open-Sora needs {', '.join(missing)}", install_command("opensora"))


def import_library(module: str) -> Any:
    """Import a module of one of them. Raises: ModelError if that fails."""
    try:
        with suppress_logs():
            return importlib.import_module(module)
    except ImportError as error:
        check_installed()
        reason = str(error).partition("\n")[0]
        message = f"this needs {module.partition('.')[0]}, which does not load: {reason}"
        raise ModelError(message, install_command("opensora")) from error


@contextmanager
def suppress_logs() -> Iterator[None]:
    """Inside the block, nothing is logged and no warning shown: what matters to a user is raised as an error."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
