"""The wheel's contents and metadata, and pinned versions within the declared ranges."""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pavdm_cli import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT_OF_ITS_OWN = {"flash", "fa3", "xformers"}  # compiled for one torch and one CUDA: no pin suits all


def pins() -> dict[str, str]:
    """Package to version, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {canonicalize_name(package): version for package, version in pairs}


def declared(*extras: str) -> list[Requirement]:
    """Base dependencies and those of some extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def marked(name: str) -> str:
    """The fenced block right after a marker in the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^<!-- {name} -->\n```\w*\n(.*?)\n```$", readme, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"pavdm-{__version__}.dist-info/METADATA"))


def test_the_wheel_holds_the_two_packages_and_nothing_else(names):
    assert {name.partition("/")[0] for name in names} == {
        "pavdm_cli",
        "pavdm_kernels",
        f"pavdm-{__version__}.dist-info",
    }
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_holds_every_module_the_weights_and_the_license(names):
    sources = [*(ROOT / "pavdm_cli").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix().removeprefix("kernels/") for path in sources} <= set(names)
    weights = {path.name for path in (ROOT / "pavdm_cli" / "models" / "pocket" / "weights").rglob("*.safetensors")}
    assert {"vae.safetensors", "denoiser.safetensors"} <= weights <= {name.rpartition("/")[2] for name in names}
    page = (ROOT / "pavdm_cli" / "serve" / "page").iterdir()
    assert {f"pavdm_cli/serve/page/{path.name}" for path in page} <= set(names)
    assert {"pavdm_cli/py.typed", "pavdm_kernels/py.typed"} <= set(names)
    assert f"pavdm-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_wheel_is_under_30_megabytes(wheel):
    assert wheel.stat().st_size < 30e6


def test_the_metadata_name_the_command_the_python_and_the_license(wheel, metadata):
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"pavdm-{__version__}.dist-info/entry_points.txt").decode()
    assert entry_points.split() == ["[console_scripts]", "pavdm", "=", "pavdm_cli.__main__:main"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_unpacked_wheel_runs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import sys, pavdm_cli.app as a; print(a.__file__); sys.argv = ['pavdm', '--version']; a.main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [str(tmp_path / "pavdm_cli" / "app.py"), f"pavdm {__version__}"]


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "pavdm_cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"pavdm {__version__}\n"


def test_the_pinned_versions_are_within_the_declared_ranges():
    pinned = pins()
    pinnable = declared(*(EXTRAS.keys() - ENVIRONMENT_OF_ITS_OWN))
    outside = [str(r) for r in pinnable if not r.specifier.contains(pinned[canonicalize_name(r.name)])]
    assert outside == []


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """Whether a package with these extras needs it here."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def needed(requirements: list[Requirement]) -> set[str]:
    """All installed packages that these need, directly or not."""
    packages: set[str] = set()
    waiting = [r for r in requirements if applies(r, set())]
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        if package not in packages and list(importlib.metadata.distributions(name=package)):
            packages.add(package)
            inner = map(Requirement, importlib.metadata.requires(package) or ())
            waiting += [r for r in inner if applies(r, requirement.extras)]
    return packages


def test_everything_a_test_run_needs_is_pinned():
    packages = needed(declared("dev"))
    assert {"torch", "sympy", "mpmath", "pluggy"} <= packages
    assert [
        p for p in packages - pins().keys() if not p.startswith(("nvidia-", "cuda-"))
    ] == []  # constraints.txt says why


def test_triton_is_the_version_that_the_pinned_torch_was_made_with():
    assert (pins()["torch"], pins()["triton"]) == ("2.13.0", "3.7.1")  # a torch without CUDA does not say


def test_both_commands_of_the_readme_install_the_pinned_versions():
    assert marked("run-command").startswith("pip install -c constraints.txt . && pavdm generate ")
    assert marked("test-command") == 'pip install -c constraints.txt -e ".[dev]" && pytest -n 2 --dist worksteal'


def test_contributing_gives_a_reason_for_every_dependency():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [r.name for r in declared(*EXTRAS) if f"`{r.name}`" not in guide] == []


def test_the_changelog_is_kept():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.*?)\]", changes, re.MULTILINE)[0] == "Unreleased"
