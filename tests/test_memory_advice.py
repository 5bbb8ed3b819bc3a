"""Hints on memory: which options make a video fit, alone or together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.requests import make_request

from pavdm_cli.generation import memory_advice, memory_plan
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve

CUDA = torch.device("cuda")


def test_where_no_option_is_enough_the_hint_says_which_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    config, gpu = resolve(make_request("a red ball", device="cpu")), {}
    steps = {"--a": 40, "--b": 30, "--size 144p": 50}

    def plan_of(options: tuple[str, ...]) -> memory_plan.MemoryPlan:
        need = 100 - sum(steps[option] for option in options)
        parts = {"part": (0, 0, need, 0)}
        named = replace(config, prompt=" ".join(options))
        return memory_plan.MemoryPlan(named, (memory_plan.DeviceMemory(CUDA, gpu["cuda"], parts),))

    def propose_savings(config: GenerationConfig) -> list[tuple[str, GenerationConfig]]:
        used = tuple(option for option in steps if option in config.prompt)
        return [(option, replace(config, prompt=" ".join((*used, option)))) for option in steps if option not in used]

    monkeypatch.setattr(memory_advice, "propose_savings", propose_savings)
    monkeypatch.setattr(
        memory_advice, "choose_plan", lambda config: plan_of(tuple(o for o in steps if o in config.prompt))
    )
    for free, says in ((35, "together: --a --b"), (15, "together: --a --size 144p"), (55, "--size 144p saves")):
        gpu["cuda"] = free
        assert says in memory_advice.build_memory_error(plan_of(())).hint
