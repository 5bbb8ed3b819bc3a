"""What is counted in a message agrees with its number."""

from __future__ import annotations

import pytest

from pavdm_cli.runtime.counting import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (-1, "-1 frames")])
def test_one_is_no_plural(count, said):
    assert counted(count, "frame") == said
