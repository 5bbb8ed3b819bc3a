"""Thousands of hostile inputs: no traceback, no crash, no ten seconds of work, no 2 GB, nothing written elsewhere.

An input is a function of its kind and number. To meet one again:
python tests/support/hostile_worker.py FOLDER KIND:NUMBER:1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.clips import ClipSpec, corners, make
from support.tiers import integration

from pavdm_cli.models.pocket.checkpoint import save
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.video import VideoWriter

TESTS = Path(__file__).parent
DEFAULT = {
    "video": 600,
    "image": 300,
    "metadata": 400,
    "config": 200,
    "weights": 150,
    "pickled": 50,
    "rows": 120,
    "captions": 80,
    "prompts": 80,
    "commands": 20,
}  # 2,000 in all
MEDIA = ("video", "image")  # kinds that need no torch
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory by /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small valid files of every kind, and folders to work in."""
    root = tmp_path_factory.mktemp("hostile")
    for name in ("cwd", "out", "home", *(f"seeds/{kind}" for kind in ("video", "image", "weights", "pickled"))):
        (root / name).mkdir(parents=True, exist_ok=True)
    _write_videos(root / "seeds" / "video")
    picture = Image.fromarray(corners(32, 48))
    for name in ("a.png", "b.jpg", "c.webp", "d.gif"):
        picture.save(root / "seeds" / "image" / name)
    save(PocketVAE(PocketVAEConfig(widths=(8, 8, 8))), root / "seeds" / "weights" / "vae.safetensors", {"steps": 1})
    save_file({"weight": torch.ones(4, 4)}, root / "seeds" / "weights" / "plain.safetensors")
    torch.save({"model": {"a": torch.ones(3, 4), "b": torch.ones(2)}}, root / "seeds" / "pickled" / "model.pt")
    return root


def _write_videos(folder: Path) -> None:
    pictures = np.stack([corners()] * 6)
    for suffix in ("mp4", "mkv", "webm", "gif"):
        with VideoWriter(folder / f"own.{suffix}", 64, 48, 8, {"pavdm": "1", "prompt": "a red ball"}) as writer:
            writer.write(pictures)
    for name, spec in {
        "sound.mp4": ClipSpec(audio="aac"),
        "turned.mov": ClipSpec("mjpeg", pixels="yuvj420p", turn=90),
        "opus.mkv": ClipSpec(audio="libopus"),
        "vp9.webm": ClipSpec("vp9"),
        "mpeg4.avi": ClipSpec("mjpeg", pixels="yuvj420p"),
        "stream.ts": ClipSpec(audio="mp2"),
    }.items():
        make(folder / name, pictures, spec)


def run(folder: Path, parts: Sequence[str]) -> str:
    """What went wrong in one process, or nothing; parts: KIND:FIRST:COUNT."""
    home = str(folder / "home")
    environment = os.environ | {"HOME": home, "XDG_CACHE_HOME": home, "PAVDM_FFMPEG": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    command = [sys.executable, "-W", "ignore", str(TESTS / "support" / "hostile_worker.py"), str(folder), *parts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, errors="replace")
    if done.returncode == 0:
        return ""
    failures = done.stdout.split("FAILED ")[1:]
    return "\n".join(failures[:5]) or f"exit {done.returncode} at {done.stdout[-40:]}: {done.stderr[-2000:]}"


def check(folder: Path, parts: Sequence[str]) -> None:
    """No failure, and nothing written but below the output's folder."""
    assert run(folder, parts) == ""
    assert list((folder / "cwd").iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"cwd", "out", "home", "seeds"}


@pytest.mark.parametrize("media", [True, False])
def test_two_thousand_hostile_inputs_are_each_met_in_one_line(folder, media):
    check(folder, [f"{kind}:0:{count}" for kind, count in DEFAULT.items() if (kind in MEDIA) == media])


@pytest.mark.long
@pytest.mark.parametrize("part", range(1, 51))
def test_a_hundred_thousand_hostile_inputs_are_each_met_in_one_line(folder, part):
    check(folder, [f"{kind}:{part * count}:{count}" for kind, count in DEFAULT.items()])


FAULTS = ("time.sleep(60)", "sum(range(10**11))", "ctypes.string_at(0)", "1 / 0", "b'x' * (3 << 30)")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [(FAULTS[3], True), ("0", False), *integration(*((one, True) for one in FAULTS if one != FAULTS[3]))],
)
def test_a_hang_a_crash_a_traceback_and_much_memory_are_seen(folder, fault, seen):
    code = f"""
        import ctypes, sys, time
        from support import hostile_worker as worker
        worker.WORK, worker.WAIT = 1, 2
        worker.KINDS["video"] = lambda draw, folder: setattr(worker, "result", {fault}) or time.sleep(0)
        sys.argv = ["", {str(folder)!r}, "video:0:1"]
        worker.main()
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert (subprocess.run(command, capture_output=True, env=environment, check=False).returncode != 0) == seen
