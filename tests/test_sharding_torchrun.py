"""Sharded weights through torchrun: the file of one process, also after rank 0 was killed."""

from __future__ import annotations

import pytest
from support import published
from support.command import pavdm
from support.wan import write_checkpoint
from test_parallel import OPTIONS, launch, rank_of, wait_for_checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.integration
def test_torchrun_shards_open_sora_and_writes_the_file_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--size", "64x64", "--seed", "1", "--threads", "1", "--device", "cpu", "--steps", 4, "--frames", 34]
    sizes += ["--window", 5, "--chunk", 5, "--fps", 24]
    words = ["generate", "a kite", "--model", published.write(tmp_path / "tiny"), *sizes]
    process = launch(*words, "--shard-weights", "on", "-o", "v.mp4", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "v.mp4\n"), err
    alone = pavdm(*words, "--cfg-batching", "sequential", "-o", "alone.mp4")
    assert alone.code == 0, alone.err
    assert (tmp_path / "v.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


@pytest.mark.long
def test_a_sharded_video_whose_rank_0_was_killed_is_resumed_sharded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "a kite", "--model", write_checkpoint(tmp_path / "tiny"), *OPTIONS, "--steps", 4]
    process = launch(*words, "--frames", 41, "--shard-weights", "on", "-o", "v.mp4", cwd=tmp_path)
    wait_for_checkpoint(tmp_path)
    ranks = [rank_of(process, rank) for rank in (0, 1)]
    ranks[0].kill()
    _, err = process.communicate(timeout=60)
    assert not any(rank.is_running() for rank in ranks)
    assert err.count("error: process 0, which writes the video, has ended") == 1, err
    resumed = launch("resume", "v.mp4", cwd=tmp_path)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    alone = pavdm(*words, "--frames", 41, "--cfg-batching", "sequential", "-o", "alone.mp4")
    assert alone.code == 0, alone.err
    assert (tmp_path / "v.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
