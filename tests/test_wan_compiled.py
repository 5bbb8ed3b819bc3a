"""Compiled blocks of the tiny Wan model: the eager video within rounding, few graphs, no breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.wan import tiny_transformer, tiny_vae

from pavdm_cli.attention import TORCH
from pavdm_cli.errors import DeviceError
from pavdm_cli.models import torch_compile
from pavdm_cli.models.adapter import DenoiserConfig, TextEmbedding
from pavdm_cli.models.wan import compiled_block, loaded
from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.models.wan.loaded import LoadedWan
from pavdm_cli.sampling.denoiser import batched_cfg
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.sampling.schedule import Schedule, pa
from pavdm_cli.sampling.unipc import unipc

MODEL = LoadedWan(tiny_transformer(), tiny_vae("2.1"), Path())
TEXT = [TextEmbedding(torch.ones(count, 32)) for count in (3, 5)]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.Graph]]:
    """Every graph that is traced; none is built by a compiler."""
    graphs: list[torch.fx.Graph] = []

    def keep(module: torch.fx.GraphModule, _: object):
        graphs.append(module.graph)
        return module.forward

    yield from use_backend(keep, monkeypatch, graphs)


def use_backend(backend, monkeypatch, result=None) -> Iterator:
    torch._dynamo.reset()
    run = compiled_block.compile_block.__wrapped__(backend)
    monkeypatch.setattr(loaded, "compile_block", lambda: run)
    yield result
    torch._dynamo.reset()


@torch.no_grad()
def video(schedule: Schedule, *, reuse: bool = False, compiled: bool = True) -> torch.Tensor:
    levels = wan_levels(6, 8.0)
    config = replace(DenoiserConfig(schedule.position_offset, (32, 32), 24, reuse, False, TORCH), compile=compiled)
    denoiser = batched_cfg(MODEL.bind(levels, config)(MODEL.text_kv(TEXT, config)), 2.0)
    noise = seeded_noise(0, (1, 16, 4, 4))
    return torch.cat(list(sample(schedule, denoiser, noise, unipc(levels), chunks=5)), dim=1)


def breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


# With reuse: one graph for the growing window and the prefill, and one with cached keys and values.
@pytest.mark.parametrize(("context", "reuse", "graphs"), [(0, False, 1), (1, False, 1), (1, True, 2)])
def test_a_video_takes_few_graphs_and_no_breaks(traced, context: int, reuse: bool, graphs: int) -> None:
    schedule, before = pa(6, 6, 2, context), breaks()
    expected = video(schedule, reuse=reuse, compiled=False)
    torch.testing.assert_close(video(schedule, reuse=reuse), expected, rtol=0, atol=1e-4)
    assert len(traced) == graphs
    assert breaks() == before


def test_a_compiler_that_fails_is_one_line(monkeypatch) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: object) -> None:
        raise RuntimeError("Something went wrong\n  fatal error: omp.h: No such file\nmore")

    with_broken = use_backend(broken, monkeypatch)
    next(with_broken)
    with pytest.raises(DeviceError, match=r"--compile failed: error: omp.h: No such file$"):
        video(pa(6, 6, 2, 0))
    next(with_broken, None)


@pytest.mark.integration
def test_the_built_blocks_equal_the_eager_ones(monkeypatch) -> None:
    if reason := torch_compile.missing_requirement(torch.device("cpu")):
        pytest.skip(f"needs {reason[0]}")
    from torch._inductor import config

    built = use_backend("inductor", monkeypatch)
    next(built)
    schedule = pa(6, 6, 2, 0)
    with config.patch(compile_threads=1):
        result = video(schedule)
    torch.testing.assert_close(result, video(schedule, compiled=False), rtol=0, atol=1e-4)
    next(built, None)
