"""Shared by all tests: the interpreter switch (before triton is imported), one thread for torch, and fixtures."""

import gc
import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # 0: for the tests that run kernels on a GPU
os.environ["HF_HUB_CACHE"] = os.path.join(os.sep, "no", "hub", "cache")  # what the machine has is not to be found
os.environ["XDG_CONFIG_HOME"] = os.path.join(os.sep, "no", "config")  # nor what its user has configured
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process that tests start compiles all modules again
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start: beside others, two threads wait long

from functools import cache
from pathlib import Path

import pytest
import torch
import typer.main
from support.ways import either_way  # noqa: F401  # for `usefixtures`

from pavdm_cli.bench import estimate
from pavdm_cli.hub import weights_dir
from pavdm_cli.models.pocket import model as pocket

# By default pocket makes small frames in the tests' own process, which takes a quarter of the time; other tests name a
# size, or start processes.
pocket.SPEC = pocket.SPEC.at(pocket.SPEC.sizes[-1], pocket.SPEC.frame_rates[0])
pocket.MODEL = pocket.PocketModel(pocket.SPEC)
torch.set_num_threads(1)
estimate.QUICK = 0.05  # seconds of matmuls in every `--plan`
typer.main.get_command = cache(typer.main.get_command)  # building all commands takes longer than most tests of one


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is in one tier: parameters of `long` leave that of their test, or `-m integration` would run them."""
    for item in items:
        if item.get_closest_marker("long"):
            item.own_markers = [mark for mark in item.own_markers if mark.name != "integration"]
    both = [item.nodeid for item in items if item.get_closest_marker("integration") and item.get_closest_marker("long")]
    if both:
        raise pytest.UsageError(f"in a module of the integration tier, but marked as long: {', '.join(both)}")


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it for garbage takes a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as Open-Sora is published, but tiny; tests that change one copy it."""
    from support import published  # late: other tests need none of its libraries

    return published.write(tmp_path_factory.mktemp("published") / "tiny")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept on disk between runs goes to a folder of the test."""
    monkeypatch.setattr(weights_dir, "user_cache_path", lambda *args, **options: tmp_path / "cache")
