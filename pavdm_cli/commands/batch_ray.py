"""`pavdm batch --engine ray`: what is checked and set before Ray is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_cli.runtime.signals import Stop

if TYPE_CHECKING:
    from pavdm_cli.batch.job import Job

# For processes that Ray starts from here: no usage statistics, and no warning about GPUs of tasks that need none.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def check_ray(workers: int) -> None:
    """Reject options that Ray decides, and a Ray that is not installed. Raises: UsageError."""
    if workers:
        raise UsageError(
            "--workers cannot be combined with --engine ray", "Ray starts as many tasks as its nodes can hold"
        )
    if importlib.util.find_spec("ray") is None:
        hint = f"{install_command('ray')} (Python {platform.python_version()})"
        raise UsageError("--engine ray needs ray, which is not installed", hint)


def run(queue: Any, jobs: list[Job], stop: Stop, listener: Any) -> None:
    """Render jobs on the cluster at RAY_ADDRESS, or the one of this machine. Raises: DeviceError, PavdmError."""
    os.environ.update(ENVIRONMENT)
    from pavdm_cli.runtime.optional_imports import suppress_logs

    with suppress_logs():
        from pavdm_cli.batch.ray_tasks import run_on_ray
    run_on_ray(queue, jobs, stop, listener, os.environ.get("RAY_ADDRESS", ""))
