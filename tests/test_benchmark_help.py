"""Every benchmark script explains itself with --help instead of starting to measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STARTED_BY_OTHERS = {"faulty_process", "unattended"}
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in STARTED_BY_OTHERS)


@pytest.mark.integration
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_has_a_help_text(script: Path) -> None:
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: ")
