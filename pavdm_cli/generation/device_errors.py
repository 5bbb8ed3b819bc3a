"""Reports out-of-memory and device failures in one line, with what was saved and what would help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pavdm_cli.errors import DeviceError, InvalidOutputError, PavdmError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_advice import propose_savings
from pavdm_cli.models.parallel import LostProcessError
from pavdm_cli.runtime.diagnose import device_hint, first_line, is_out_of_memory


@contextmanager
def report_device_errors(
    config: GenerationConfig, describe_saved: Callable[[], str] = lambda: "no frames were finished"
) -> Iterator[None]:
    """Convert out-of-memory and device failures to DeviceError; `describe_saved` describes what was saved.

    Other errors are re-raised with that description as a note. Raises: DeviceError.
    """
    try:
        yield
    except (InvalidOutputError, LostProcessError) as error:
        raise type(error)(f"{error.message}: {describe_saved()}", error.hint) from None
    except PavdmError:
        raise
    except Exception as error:
        device = config.device.type
        if is_out_of_memory(error):
            options = ", ".join(option for option, _ in propose_savings(config))
            raise DeviceError(f"{device} ran out of memory: {describe_saved()}", f"try {options}") from error
        if advice := device_hint(error):
            raise DeviceError(f"{device} failed: {first_line(error)}: {describe_saved()}", advice) from error
        error.add_note(describe_saved())
        raise
