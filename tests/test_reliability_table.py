"""The documented table of faults matches the last stored one, in which nothing was lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import faults

ROOT = Path(__file__).parents[1]


def stored() -> list[dict]:
    rows = (ROOT / "benchmarks" / "results" / "faults.jsonl").read_text(encoding="utf-8").splitlines()
    return list(json.loads(rows[-1])["faults"])


def test_the_documented_table_is_the_last_stored_one() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.split("<!-- faults: begin -->\n")[1].split("<!-- faults: end -->")[0].strip()
    assert table.splitlines() == [*faults.HEAD.splitlines(), *map(faults.line, stored())]


def test_no_fault_lost_a_frame_or_changed_a_byte() -> None:
    for row in stored():
        assert row["lost"] == 0
        assert row["identical"] == row["videos"] > 0
