"""Install commands for optional dependencies. They name the packages, never this project.

This project is not published on a package index, where anybody could take its name.
"""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
FROM_SOURCE = ("flash-attn",)  # builds against the installed torch, which build isolation hides


def install_command(extra: str) -> str:
    """The pip command that installs the packages of an extra, in the versions that this project requires."""
    packages = extra_requirements(extra)
    source = any(package_name(package) in FROM_SOURCE for package in packages)
    words = [f'"{package}"' if re.search(r"[<>=!~]", package) else package for package in packages]
    return " ".join(["pip install", *["--no-build-isolation"] * source, *words])


def extra_requirements(extra: str) -> list[str]:
    """The requirements of an extra without their markers: from the clone's pyproject.toml, else as installed."""
    return [line.partition(";")[0].strip() for line in _of_checkout(extra) or _of_installation(extra)]


def package_name(requirement: str) -> str:
    """The package of a requirement."""
    return re.split(r"[^\w.\-]", requirement, maxsplit=1)[0]


def _of_checkout(extra: str) -> list[str]:
    """Empty outside a clone. Read first: the metadata of an editable installation may be older than its sources."""
    import tomllib

    try:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return []
    return list(project["optional-dependencies"][extra]) if project.get("name") == "pavdm" else []


def _of_installation(extra: str) -> list[str]:
    from importlib.metadata import requires

    lines = requires("pavdm") or []
    return [line for line in lines if re.search(rf"""extra\s*==\s*['"]{extra}['"]""", line)]
