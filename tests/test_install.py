"""Hints name packages to install; Triton comes with torch for GPUs and is no dependency of this project."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from test_architecture import ROOT, project_files

from pavdm_cli.commands import doctor
from pavdm_cli.runtime import install_hints
from pavdm_cli.runtime.install_hints import extra_requirements, install_command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

# What the wheels of torch for Linux on PyPI (cp312-manylinux_2_28, x86_64 and aarch64) require, by their METADATA.
TORCH_ON_PYPI = {
    "2.11.0": 'triton==3.6.0; platform_system == "Linux"',
    "2.12.0": 'triton==3.7.0; platform_system == "Linux"',
    "2.13.0": 'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"',
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_hint_names_every_package_of_an_extra(extra):
    command = install_command(extra)
    assert re.findall(r'"([^"]+)"', command) == [line.partition(";")[0] for line in EXTRAS[extra]]
    assert command.startswith("pip install ")


def test_only_flash_attention_builds_without_isolation():
    assert install_command("flash").startswith('pip install --no-build-isolation "flash-attn>=')
    assert [e for e in EXTRAS if "--no-build-isolation" in install_command(e)] == ["flash"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_installed_copy_gives_the_same_hint_as_a_clone(extra, monkeypatch, tmp_path):
    lines = [f"torch>=2.11; extra == 'no{extra}'"]
    for name, requirements in EXTRAS.items():
        split = [line.partition("; ") for line in requirements]
        lines += [f'{r}; ({m}) and extra == "{name}"' if m else f'{r}; extra == "{name}"' for r, _, m in split]
    clone = install_command(extra)
    monkeypatch.setattr(install_hints, "CHECKOUT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "requires", {"pavdm": lines}.get)
    assert install_command(extra) == clone


def test_the_pyproject_of_another_project_is_not_read(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname="x"\n[project.optional-dependencies]\nheic=["evil"]')
    monkeypatch.setattr(install_hints, "CHECKOUT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["pillow-heif>=1.1; extra == 'heic'"])
    assert extra_requirements("heic") == ["pillow-heif>=1.1"]


PUBLISHED = re.compile(rf"pip3? +install[^\n&|;`]*?[\s\"']{PROJECT['name']}\b|\b{PROJECT['name']}\[", re.IGNORECASE)


def test_nothing_installs_this_project_from_an_index():
    texts = {path: path.read_bytes().decode(errors="replace") for path in project_files() if path != Path(__file__)}
    assert [(str(path), match[0]) for path, text in texts.items() if (match := PUBLISHED.search(text))] == []


@pytest.mark.parametrize("line", [f"pip install {PROJECT['name']}", f'pip install -U "{PROJECT["name"]}[heic]"'])
def test_the_search_for_such_lines_finds_them(line):
    assert PUBLISHED.search(line)


def test_triton_is_no_dependency_but_an_extra():
    assert [line for line in PROJECT["dependencies"] if line.startswith("triton")] == []
    assert {name for name in EXTRAS if any(line.startswith("triton") for line in EXTRAS[name])} == {"gpu", "dev"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("version", TORCH_ON_PYPI)
def test_a_gpu_installation_gets_triton_from_torch(version, python):
    torch = next(Requirement(line) for line in PROJECT["dependencies"] if line.startswith("torch"))
    brought = Requirement(TORCH_ON_PYPI[version])
    assert isinstance(brought.marker, Marker)
    linux = {"platform_system": "Linux", "sys_platform": "linux", "python_version": python}
    assert torch.specifier.contains(version)
    assert brought.marker.evaluate(linux | {"platform_machine": "x86_64"})
    ours = Requirement(EXTRAS["gpu"][0])
    assert ours.specifier.contains(str(brought.specifier).removeprefix("=="))


def test_the_oldest_torch_allowed_is_among_those_looked_at():
    oldest = next(line.partition(">=")[2] for line in PROJECT["dependencies"] if line.startswith("torch"))
    assert min(TORCH_ON_PYPI) == f"{oldest}.0"


@pytest.mark.parametrize(("system", "expected"), [("Linux", 'pip install "triton>='), ("Windows", "GPUs on Linux")])
def test_the_doctor_says_who_needs_the_triton_that_is_missing(system, expected, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: doctor.MISSING)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    row = dict(doctor._versions())["triton"]
    assert row.startswith("not installed; only kernels on a GPU need it")
    assert expected in row
