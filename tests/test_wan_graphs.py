"""Captured and replayed steps of the tiny Wan model, on a CPU stand-in for CUDA graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.wan import tiny_transformer, tiny_vae
from test_graphs import taped

from pavdm_cli.attention import TORCH
from pavdm_cli.models.adapter import DenoiserConfig, TextEmbedding
from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.models.wan.loaded import LoadedWan
from pavdm_cli.sampling.denoiser import TimelineDenoiser, batched_cfg
from pavdm_cli.sampling.loop import denoise
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.sampling.schedule import Schedule, pa
from pavdm_cli.sampling.unipc import unipc

SCHEDULES = {
    "pa": (pa(4, 4, 2), 0),
    "without context": (pa(4, 4, 2, 0), 0),
    "noised context": (pa(4, 4, 2), 20),
    "full window": (replace(pa(4, 4, 2), full_window=True), 0),
    "windows": (Schedule(4, 2, 2, 2, full_window=True, restart=2), 0),
}


@pytest.mark.parametrize("reuse", [False, True], ids=["recompute", "reuse"])
@pytest.mark.parametrize("name", SCHEDULES)
@torch.no_grad()
def test_replayed_steps_are_the_steps(name: str, reuse: bool) -> None:
    schedule, context_noise = SCHEDULES[name]
    model, levels = LoadedWan(tiny_transformer(), tiny_vae("2.1"), Path()), wan_levels(4, 8.0, context_noise)
    text = [TextEmbedding(torch.ones(count, 32)) for count in (3, 5)]
    config = DenoiserConfig(schedule.position_offset, (32, 32), 24, reuse, False, TORCH)
    noise, solver = seeded_noise(0, (1, 16, 4, 4)), unipc(levels)

    def run(graph_capturer: object) -> list[torch.Tensor]:
        denoiser = batched_cfg(model.bind(levels, config)(model.text_kv(text, config)), 2.0)
        states = denoise(schedule, denoiser, noise, solver, chunks=5, graph_capturer=graph_capturer)
        return [state.window.clone() for state in states]

    policy = taped()
    eager, replayed = run(None), run(policy)
    assert all(torch.equal(a, b) for a, b in zip(eager, replayed, strict=True))
    assert policy.backend.replays == len(eager) == schedule.total_steps(5)


@torch.no_grad()
def test_the_prompt_changes_in_replayed_steps() -> None:
    schedule, levels = pa(4, 4, 2), wan_levels(4, 8.0)
    model = LoadedWan(tiny_transformer(), tiny_vae("2.1"), Path())
    config = DenoiserConfig(schedule.position_offset, (32, 32), 24, True, False, TORCH)
    texts = [model.text_kv([TextEmbedding(torch.full((count, 32), float(count)))], config) for count in (3, 5)]
    denoiser = TimelineDenoiser(model.bind(levels, config), lambda newest: texts[newest > 1])

    def run(graph_capturer: object) -> list[torch.Tensor]:
        states = denoise(
            schedule, denoiser, seeded_noise(0, (1, 16, 4, 4)), unipc(levels), chunks=5, graph_capturer=graph_capturer
        )
        return [state.window.clone() for state in states]

    policy, alone = taped(), taped()
    eager, replayed = run(None), run(policy)
    denoiser = TimelineDenoiser(denoiser.bind, lambda newest: texts[0])
    assert not torch.equal(run(alone)[-1], eager[-1])
    assert all(torch.equal(a, b) for a, b in zip(eager, replayed, strict=True))
    assert policy.backend.replays == len(eager)
    assert policy.count == alone.count  # every prompt has as many rows: no step is captured again
