"""The baseline computes the same velocities as our network, with the released code's operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.requests import make_request
from test_stdit import TINY, randomized
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pavdm_cli.bench import ablate, architectures
from pavdm_cli.bench.released import Prompt, released_stdit
from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.opensora import mid
from pavdm_cli.models.opensora.config import XL2
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_full_context
from pavdm_cli.models.stdit.flops import step_flops, tokens_per_latent
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.noise import linear_sigmas

SIGMAS = linear_sigmas(6)
LEVELS = torch.tensor([2, 2, 4, 4, 6, 6], dtype=torch.int32)
FPS = 24.0


@pytest.fixture(scope="module")
def network() -> STDiT:
    return randomized(STDiT(TINY)).requires_grad_(False)


def latents(frames: int, width: int = 4) -> Tensor:
    return torch.randn(2, frames, 3, 5, width, generator=torch.Generator().manual_seed(frames))


def both(network: STDiT, size: tuple[int, int] | None) -> tuple[Denoiser, Denoiser]:
    """The baseline and ours, bound to the same prompt."""
    y = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1)).to(network.y_embedder.y_embedding)
    sigmas = SIGMAS.to(y)
    table = compute_modulation(network, 1000 * sigmas, FPS)
    base = released_stdit(network, Prompt(y, FPS), sigmas, size)
    return base, with_full_context(network, network.encode_text(y), table, 2, size)


@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize("size", [None, (40, 32)])
@pytest.mark.parametrize("width", [4, 3])
def test_the_released_operations_give_our_velocity(network: STDiT, overlap: int, size, width: int) -> None:
    velocities = []
    for denoiser in both(network, size):
        memory = denoiser.prefill(latents(overlap, width), 0) if overlap else None
        velocities.append(denoiser(latents(6, width), LEVELS, memory))
    torch.testing.assert_close(*velocities, rtol=0, atol=2e-5)
    assert velocities[0].std() > 0.1


def test_attention_is_fused_where_a_sequence_is_longer_than_their_number_and_agrees(network: STDiT) -> None:
    exact = randomized(STDiT(TINY)).double().requires_grad_(False)
    window = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)  # 64 tokens of 12 frames: fused over space
    base, ours = both(exact, None)
    torch.testing.assert_close(base(window, LEVELS, None).double(), ours(window, LEVELS, None), rtol=0, atol=2e-6)


def test_counted_operations_are_torchs_count(network: STDiT) -> None:
    y = torch.randn(2, 7, 5)
    text, table = network.encode_text(y), compute_modulation(network, SIGMAS, FPS)
    tokens, step = tokens_per_latent(TINY, (5, 3)), StepShape(batch=2, window=6, context=0, text=7)
    assert tokens == 6
    z = latents(6, 3).requires_grad_()  # attention is then made of products, which torch can count
    for call, counted in (
        (network, 1e-12 * step_flops(TINY, step, tokens)),
        (network.prefill, 1e-12 * step_flops(TINY, replace(step, prefill=True), tokens)),
    ):
        with FlopCounterMode(display=False) as counter:
            call(z, LEVELS, table, text)
        assert counter.get_total_flops() == round(1e12 * counted)


def test_the_architectures_take_the_work_they_are_known_for() -> None:
    for name, tflop in (("mid", 0.217), ("opensora-v1.2", 62.8)):  # the text's own 0.2 left out
        architecture = architectures.find_architecture(name)
        config = replace(XL2, **dict(getattr(architecture.video_model, "sizes")))  # noqa: B009
        tokens = tokens_per_latent(config, tuple(side // 8 for side in architecture.spec.size))
        step = StepShape(batch=2, window=35, context=0, text=architecture.tokens)
        assert 1e-12 * step_flops(config, step, tokens) == pytest.approx(tflop, rel=5e-3)


SIZES = (("hidden", 32), ("depth", 2), ("heads", 2), ("text_width", 5), ("text_length", 7))
SMALL = architectures.Architecture(replace(mid.MODEL, sizes=SIZES, spec=replace(mid.MODEL.spec, size=(16, 24))), 7)


@pytest.mark.integration
def test_every_rung_is_timed_and_only_the_cached_context_deviates(monkeypatch) -> None:
    monkeypatch.setattr(ablate, "missing_requirement", lambda device: ("a compiler", ""))
    counts: list[int] = []
    request = make_request("", seconds=1, model="opensora-v1.2", seed=1, threads=1)
    row = ablate.ablate(replace(request, prompt="a"), SMALL, 2, counts.append)
    ladder = {rung["rung"]: rung for rung in row["ladder"]}
    assert list(ladder) == [ablate.BASELINE, *ablate.RUNGS]
    assert len([count for count in counts if count]) == 2 * len(ladder)  # and one call that starts the clock
    assert all(len(row["samples"][name]) == 2 for name in ladder)
    assert ladder[ablate.BASELINE]["ratio"] == 1
    exact = [rung["deviation"] for name, rung in ladder.items() if name != "+ context K/V"]
    assert max(exact) < 2e-5
    assert ladder["+ context K/V"]["deviation"] > 1e-4  # a bidirectional network: an approximation, and it says so


def test_no_weight_of_an_architecture_is_left_without_effect() -> None:
    model = architectures.random_model(SMALL, torch.device("cpu"))
    assert [name for name, weight in model.transformer.state_dict().items() if not weight.any()] == []
