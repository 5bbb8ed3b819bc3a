"""The documented table of transitions matches the stored rows, which meet the documented limits."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import redo

ROOT = Path(__file__).parents[1]


def test_the_documented_table_is_that_of_the_stored_rows() -> None:
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    table = text.split("<!-- redo: begin -->\n")[1].split("<!-- redo: end -->")[0].strip()
    assert table.splitlines() == redo.format_rows(redo.read_rows(redo.RESULTS))


def test_every_video_was_measured_with_the_same_weights() -> None:
    rows = redo.read_rows(redo.RESULTS)
    assert [row["video"] for row in rows] == list(range(redo.VIDEOS))
    assert len({row["weights"] for row in rows}) == 1


def test_the_joins_meet_the_documented_bars() -> None:
    rows = redo.read_rows(redo.RESULTS)
    for index in range(len(redo.SPANS)):
        jumps = [row["spans"][index]["redo"]["join"] for row in rows]
        assert median(jumps) <= 1.2
        assert max(jumps) <= 3
    assert median(row["loop"]["loop"]["join"] for row in rows) <= 2
