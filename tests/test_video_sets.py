"""Sets of generated videos, which the quality bars measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pavdm_cli.errors import PavdmError
from pavdm_cli.evaluation.videos import VideoSet, generate_videos


def test_videos_are_generated_by_the_given_weights(tmp_path: Path) -> None:
    with pytest.raises(PavdmError, match=tmp_path.name):
        next(generate_videos(VideoSet(range(1), 1.0, tmp_path)))
