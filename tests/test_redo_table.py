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


def test_regenerated_spans_join_better_than_a_hard_cut() -> None:
    rows = redo.read_rows(redo.RESULTS)
    for index in range(len(redo.SPANS)):
        jumps, cuts = ([row["spans"][index][kind]["join"] for row in rows] for kind in ("redo", "cut"))
        assert median(jumps) <= 0.6 * median(cuts)
        assert max(jumps) < max(cuts)
    loops = [row["loop"] for row in rows]
    assert median(row["loop"]["join"] for row in loops) <= 0.5 * median(row["none"]["join"] for row in loops)


def test_values_above_their_bars_are_marked() -> None:
    join = {"join": 1.25, "left": 0.0, "sharpness": 1.0}
    assert redo.line("x", [join, join | {"join": 3.5}], 1.2, 3.0) == "| x | 2.4: missed | 3.5: missed |  | 1.00 |"
    assert redo.line("x", [join], 1.3, 3.0) == "| x | 1.2 | 1.2 |  | 1.00 |"
