"""Every benchmark script explains itself with --help instead of starting to measure."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

STARTED_BY_OTHERS = {"faulty_process", "unattended"}
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in STARTED_BY_OTHERS)


@pytest.mark.integration
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_has_a_help_text(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])  # as for a script, so that it finds its neighbors
    before = {*sys.modules}
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    for name in {*sys.modules} - before:  # its neighbors, which other tests import from elsewhere
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
