"""Real faults of real processes, from `benchmarks/faults.py`: no reported frame is lost."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command import pavdm
from support.tiers import long

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import faults

# The size that pocket has by default in this process, which resumes videos of others.
faults.WORDS = (*faults.WORDS, "--size", "96x64", "--fps", "8")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


@pytest.fixture(scope="module")
def expected_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expected_video")
    begun = time.monotonic()
    faults.run(folder, (*faults.WORDS, "-o", "v.mp4"))
    (folder / "seconds").write_text(str(time.monotonic() - begun))
    return folder / "v.mp4"


@pytest.fixture
def resume_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume videos in this process, which starts much faster, unless the resumed run is killed too."""
    run_process = faults.run

    def run(folder: Path, words: tuple[str, ...], fault: str = "none", number: int = 0, **options: Any) -> Any:
        if fault != "none" or options or not {"resume", "--force"}.intersection(words):
            return run_process(folder, words, fault, number, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            result = pavdm(*words)
        return faults.parse_result(result.code, result.err)

    monkeypatch.setattr(faults, "run", run)


def check(row: faults.Row) -> None:
    assert row.times
    assert row.lost == 0
    assert row.identical == row.videos > 0


def seconds(expected_video: Path) -> float:
    return float((expected_video.parent / "seconds").read_text())


@pytest.mark.integration
def test_kills_at_random_moments(expected_video: Path) -> None:
    check(faults.random_kills(expected_video, 1, seconds(expected_video)))


@pytest.mark.long
def test_fifty_kills_at_random_moments(expected_video: Path) -> None:
    check(faults.random_kills(expected_video, 50, seconds(expected_video)))


@pytest.mark.integration
@pytest.mark.usefixtures("resume_here")
@pytest.mark.parametrize("fault", ["half a checkpoint", *long("half a segment", "link")])
def test_kills_inside_writes(expected_video: Path, fault: str) -> None:
    check(faults.kills_inside(expected_video, fault, 2))


@pytest.mark.integration
@pytest.mark.usefixtures("resume_here")
@pytest.mark.parametrize(("fault", "code"), [("nan", 1), ("out of memory", 6)])
def test_faults_of_sampling(expected_video: Path, fault: str, code: int) -> None:
    row = faults.fault_in_sampling(expected_video, fault)
    check(row)
    assert row.exit_codes == {code}


@pytest.mark.integration
@pytest.mark.usefixtures("resume_here")
def test_a_full_disk(expected_video: Path) -> None:
    row = faults.full_disk(expected_video)
    check(row)
    assert row.exit_codes == {4}
