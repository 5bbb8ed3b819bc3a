"""Reuse of the context's keys and values: when it is on, its cost, and its error where it is approximate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.requests import make_request
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pavdm_cli.bench.context_reuse import deviations, is_approximate
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import registry
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_full_context, with_kv_cache
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.noise import linear_sigmas


def job_of(method: str = "pa", context_cache: str = "auto", causal: bool = True) -> GenerationConfig:
    """Four chunks in a few steps, of a model that was trained with clean frames alone or not."""
    sampling = {
        "steps": 6,
        "seed": 3,
        "guidance": 1,
        "method": method,
        "warmup": 0,
        "context_cache": context_cache,
    }
    job = resolve(make_request("a blue kite above the sea", frames=16, **sampling))
    return replace(job, spec=replace(job.spec, causal=causal))


@pytest.fixture(scope="module")
def model() -> ModelRunner:
    return pipeline.open_model(job_of())


def made(job: GenerationConfig, model: ModelRunner) -> Tensor:
    return torch.cat(list(pipeline.sample_latents(job, replace(model, spec=job.spec))), dim=1)


@pytest.mark.parametrize(
    ("method", "option", "expected"),
    [
        ("pa", "auto", "reuse"),
        ("pa", "reuse", "reuse"),
        ("pa", "recompute", "recompute"),
        ("rn", "auto", "reuse"),
        ("rw", "auto", "recompute"),
        ("rw", "recompute", "recompute"),
    ],
)
def test_what_is_asked_for_is_done_and_otherwise_what_is_exact(method, option, expected):
    assert job_of(method, option).execution.context_cache == expected


def test_reuse_is_rejected_for_rw():
    with pytest.raises(UsageError, match="--method rw"):
        job_of("rw", "reuse")


def test_for_a_model_trained_so_reuse_is_exact(model):
    reused, computed = made(job_of(), model), made(job_of(context_cache="recompute"), model)
    torch.testing.assert_close(reused, computed, rtol=0, atol=1e-4)
    assert max(deviations(job_of(), model)) < 1e-4


def test_for_another_model_the_deviation_of_every_chunk_is_told(model):
    reuse, recompute = (job_of(context_cache=kv, causal=False) for kv in ("reuse", "recompute"))
    errors = deviations(recompute, replace(model, spec=recompute.spec), shifts=2)
    pairs = zip(made(reuse, model).split(2, dim=1), made(recompute, model).split(2, dim=1), strict=True)
    first, *later = [float((a - b).norm() / b.norm()) for a, b in pairs]
    assert first < 1e-6  # made before there is an overlap
    assert errors == pytest.approx(later[:2])
    assert min(errors) > 1e-3


def test_a_row_tells_of_the_deviation_where_it_is_in_question():
    assert not is_approximate(job_of())
    assert not is_approximate(job_of(context_cache="reuse"))
    assert is_approximate(job_of(context_cache="reuse", causal=False))
    assert not is_approximate(job_of(context_cache="recompute", causal=False))


def test_reuse_by_a_model_that_was_not_trained_for_it_is_noted(monkeypatch):
    assert not any("approximation" in note for note in job_of(context_cache="reuse").notes)
    pocket = registry.get("pocket")
    monkeypatch.setattr(
        "pavdm_cli.generation.request.find", lambda name: replace(pocket, spec=replace(pocket.spec, causal=False))
    )
    assert job_of().execution.context_cache == "recompute"
    assert any("approximation" in note for note in job_of(context_cache="reuse").notes)


# The paper's setting on Open-Sora's transformer: 240x424 pixels in 30 noisy latents and 5 clean ones, 30 steps.
FRAMES, CLEAN, STRIDE, DEPTH = 30, 5, 5, 28
SIZES = {"hidden": 1152, "heads": 16, "in_channels": 4, "out_channels": 8, "text_width": 4096, "text_length": 300}


class Costs:
    """Operations of a denoiser's calls, counted on tensors without contents."""

    def __init__(self, kind, depth: int) -> None:
        stdit = STDiT(STDiTConfig(depth=depth, **SIZES)).to("meta").requires_grad_(False)
        text = stdit.encode_text(torch.empty(2, 300, 4096, device="meta"))
        denoiser: Denoiser = kind(stdit, text, compute_modulation(stdit, 1000 * linear_sigmas(30), 24.0), CLEAN)
        window, overlap = (torch.empty(2, count, 4, 30, 53, device="meta") for count in (FRAMES, CLEAN))
        levels = torch.empty(FRAMES, dtype=torch.int32, device="meta")
        self.prefill, memory = counted(lambda: denoiser.prefill(overlap, 0))
        self.step = counted(lambda: denoiser(window, levels, memory))[0]
        self.alone = counted(lambda: denoiser(window, levels, None))[0]


def counted(call) -> tuple[int, object]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = call()
    return counter.get_total_flops(), out


def share(kind) -> tuple[float, float]:
    """What the overlap costs, over the noisy work of a shift; and that work a step, in TFLOP.

    Blocks cost the same whatever their number, so two small depths tell of the real one.
    """
    with torch.device("meta"):
        costs, doubled = Costs(kind, 1), Costs(kind, 2)
    remember, step, alone = (
        getattr(costs, name) + (DEPTH - 1) * (getattr(doubled, name) - getattr(costs, name))
        for name in ("prefill", "step", "alone")
    )
    return (remember + STRIDE * (step - alone)) / (STRIDE * alone), alone / 1e12


def test_reuse_costs_the_overlap_once_a_shift():
    cost, alone = share(with_kv_cache)
    assert cost == pytest.approx(CLEAN / (FRAMES * STRIDE), abs=0.002)  # 3.3 %
    assert cost < CLEAN / (FRAMES * STRIDE)  # the last block gives keys and values, and nothing after them
    assert 50 < alone < 60


@pytest.mark.parametrize("kind", [partial(with_full_context, causal=True), with_full_context])
def test_recomputing_costs_the_overlap_at_every_step(kind):
    assert share(kind)[0] == pytest.approx(CLEAN / FRAMES, abs=0.002)  # 16.7 %
