"""Interrupted videos: what a kill would leave after each checkpoint of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pavdm_cli.generation import checkpoint
from support.command import CommandResult, pavdm

SAMPLED = ("--seed", 1, "--threads", 1, "--device", "cpu")
QUICK = (*SAMPLED, "--steps", 6, "--warmup", 0, "--scale", 1)
RED = ("generate", "a red ball bouncing over the sea at sunset", *QUICK)


def made(*words: object, name: str) -> CommandResult:
    said = pavdm(*words, "-o", name)
    assert said.code == 0, said.err
    return said


def snapshots(*words: object, name: str) -> list[Path]:
    """What a kill would leave after each checkpoint of a run that ends well, a folder each."""
    folders: list[Path] = []
    write = checkpoint.write_checkpoint

    def write_and_copy(path: Path, value: checkpoint.Checkpoint) -> None:
        write(path, value)
        folders.append(Path(f"cut{len(folders)}").absolute())
        folders[-1].mkdir()
        for file in path.parent.glob(f"{Path(name).stem}.partial*"):
            shutil.copy(file, folders[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pavdm_cli.generation.checkpoint_writer.write_checkpoint", write_and_copy)
        made(*words, name=name)
    return folders
