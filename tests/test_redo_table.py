"""The documented table of joins is that of the stored rows, which meet their bars as far as the document says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import redo

ROOT = Path(__file__).parents[1]


def test_the_documented_table_is_that_of_the_stored_rows() -> None:
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    table = text.split("<!-- redo: begin -->\n")[1].split("<!-- redo: end -->")[0].strip()
    assert table.splitlines() == redo.format_rows(redo.stored(redo.RESULTS))


def test_every_video_was_measured_with_the_same_weights() -> None:
    rows = redo.stored(redo.RESULTS)
    assert [row["video"] for row in rows] == list(range(redo.VIDEOS))
    assert len({row["weights"] for row in rows}) == 1
