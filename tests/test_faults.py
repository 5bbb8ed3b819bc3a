"""Real processes under real faults, as `benchmarks/faults.py` makes them: nothing that was announced is lost."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import faults

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    faults.run(folder, (*faults.WORDS, "-o", "v.mp4"))
    (folder / "seconds").write_text(str(time.monotonic() - begun))
    return folder / "v.mp4"


def check(row: faults.Row) -> None:
    assert row.times
    assert row.lost == 0
    assert row.identical == row.videos > 0


def seconds(whole: Path) -> float:
    return float((whole.parent / "seconds").read_text())


def test_kills_at_random_moments(whole: Path) -> None:
    check(faults.random_kills(whole, 4, seconds(whole)))


@pytest.mark.long
def test_fifty_kills_at_random_moments(whole: Path) -> None:
    check(faults.random_kills(whole, 50, seconds(whole)))


@pytest.mark.parametrize("fault", [*faults.faulty_process.HALVES, "link"])
def test_kills_inside_writes(whole: Path, fault: str) -> None:
    check(faults.kills_inside(whole, fault, 2))


@pytest.mark.parametrize(("fault", "code"), [("nan", 1), ("out of memory", 6)])
def test_faults_of_sampling(whole: Path, fault: str, code: int) -> None:
    row = faults.fault_in_sampling(whole, fault)
    check(row)
    assert row.exit_codes == {code}


def test_a_full_disk(whole: Path) -> None:
    row = faults.full_disk(whole)
    check(row)
    assert row.exit_codes == {4}
