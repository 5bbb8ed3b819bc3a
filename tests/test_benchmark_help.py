"""Every benchmark script explains itself with --help instead of starting to measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = {"faulty_process", "unattended"}  # that other scripts start
SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.integration
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_has_a_help_text(script: Path) -> None:
    if script.stem in HELPERS:
        pytest.skip("started by another script")
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: ")
