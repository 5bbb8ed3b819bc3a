"""`pavdm doctor`: show what is installed and what works."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from pavdm_cli import __version__, ui
from pavdm_cli.commands.output_options import Json
from pavdm_cli.runtime import optional_imports
from pavdm_cli.runtime.install_hints import install_command
from pavdm_cli.runtime.printable import pluralize

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "av",
    "safetensors",
    "typer",
    "rich",
    "einops",
    "ffmpeg-python",
    "platformdirs",
)
MISSING = "not installed"


def doctor(as_json: Json = False) -> None:
    """Show versions, devices, attention backends (and why any are unavailable), encoders and free disk space."""
    report: dict[str, Sequence[tuple[str, ...]]] = {
        "versions": [("pavdm", __version__), ("python", _python_version()), *_versions()],
        "extra opensora": _opensora(),
        "devices": _devices(),
        "attention backends": _backends(),
        "video": _encoders(),
        "disk": [("free here", f"{shutil.disk_usage('.').free / 1e9:.1f} GB")],
    }
    if as_json:
        print(json.dumps({title: _to_json(rows) for title, rows in report.items()}))
        return
    for number, (title, rows) in enumerate(report.items()):
        ui.show_table(f"{chr(10) * bool(number)}{title}", ("",) * len(rows[0]), rows)


def _to_json(rows: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Rows as a dict: {name: value}, or {name: {usable, reason}}."""
    if len(rows[0]) == 2:
        return dict(rows)  # type: ignore[arg-type]
    return {name: {"usable": usable == "yes", "reason": reason} for name, usable, reason in rows}


def _python_version() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"


def _versions() -> list[tuple[str, str]]:
    return [(name, _triton() if name == "triton" else _version(name)) for name in PACKAGES]


def _triton() -> str:
    """Triton's version, or who needs it. PyPI's torch wheels for Linux depend on it."""
    version = _version("triton")
    if version != MISSING:
        return version
    install_hint = install_command("gpu") if platform.system() == "Linux" else "only for GPUs on Linux"
    return f"{MISSING}; only kernels on a GPU need it: {install_hint}"


def _opensora() -> list[tuple[str, str]]:
    rows = [(name, _version(name)) for name in optional_imports.PACKAGES]
    is_installed = all(version != MISSING for _, version in rows)
    return [
        *rows,
        ("opensora-v1.2", "ready to download and run" if is_installed else f"no: {install_command('opensora')}"),
    ]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _devices() -> list[tuple[str, str]]:
    import torch

    gpus = [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    missing = "this torch has no CUDA" if not torch.version.cuda else "no GPU or driver found"
    mps = "yes" if torch.backends.mps.is_available() else "no: Apple silicon only"
    return [
        ("cpu", pluralize(torch.get_num_threads(), "thread")),
        *(gpus or [("cuda", f"no: {missing}")]),
        ("mps", mps),
    ]


def _backends() -> list[tuple[str, str, str]]:
    from pavdm_cli.attention import BACKENDS, auto_order, machine_of
    from pavdm_cli.models.devices import pick_device

    machine = machine_of(pick_device("auto"))
    rows = []
    for name, backend in BACKENDS.items():
        reasons = "; ".join(filter(None, (backend.unfit_machine(machine), backend.probe())))
        use = "used by auto" if name in auto_order(machine) else "only if named"
        rows.append((name, "no" if reasons else "yes", reasons or f"{use}, on {machine}"))
    return rows


def _encoders() -> list[tuple[str, str]]:
    import av

    from pavdm_cli.video.write.encode import can_encode
    from pavdm_cli.video.write.external import find_ffmpeg

    encoders = [name for name in ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "gif") if can_encode(name)]
    return [
        ("PyAV", av.__version__),
        ("encoders", ", ".join(encoders)),
        ("ffmpeg", find_ffmpeg() or "not found (optional)"),
    ]
