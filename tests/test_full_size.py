"""Open-Sora at full size on the meta device: operations and memory follow from its published sizes."""

from __future__ import annotations

import pytest
import torch
from support.models import OPENSORA
from torch.utils.flop_counter import FlopCounterMode

from pavdm_cli.models import meta_model, registry
from pavdm_cli.models.adapter import Placement, StepShape
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.opensora.config import XL2
from pavdm_cli.models.opensora.vae import OpenSoraVAE
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit.flops import step_flops, tokens_per_latent
from pavdm_cli.models.stdit.transformer import Modulation
from pavdm_cli.sampling.schedule import METHODS, Schedule

META, CUDA = torch.device("meta"), torch.device("cuda")
WINDOW, TOKENS = 35, 405  # latents of 240x426 pixels: 30 noisy and 5 clean ones, of 15 x 27 patches


@pytest.fixture(scope="module")
def model() -> ModelRunner:
    return meta_model.meta_runner(registry.get(OPENSORA.name), OPENSORA, Placement(CUDA, "bf16"))


def near(value: float) -> object:
    """Within 1 %."""
    return pytest.approx(value, rel=0.01)


def blank(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device=META, dtype=torch.bfloat16)


def flops(frames: int, words: int = 300) -> float:
    return step_flops(XL2, StepShape(batch=2, window=frames, context=0, text=words), TOKENS)


def tflop(counter: FlopCounterMode) -> float:
    return counter.get_total_flops() / 1e12


@pytest.mark.integration
def test_a_step_at_the_papers_setting_is_63_tflop_by_torch_and_by_sizes(model):
    table = Modulation(blank(31, 6, 1152), blank(31, 1152))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        text = model.transformer.encode_text(blank(2, 300, 4096))
        levels = torch.zeros(WINDOW, dtype=torch.int32, device=META)
        model.transformer(blank(2, WINDOW, 4, 30, 53), levels, table, text, size=(240, 426))
    assert tflop(counter) == near(62.99)
    assert 1e-12 * flops(WINDOW) == near(62.99 - 0.18)  # the text's keys and values are computed once per prompt
    assert 1e-12 * flops(WINDOW, 120) == near(61.56 - 0.07)
    assert 1e-12 * flops(WINDOW) / WINDOW == near(1.80)
    assert tokens_per_latent(XL2, (30, 53)) == TOKENS


def test_a_minute_is_445_steps_and_27_pflop():
    schedule: Schedule = METHODS["pa"](30, 30, 5, True)
    chunks = 425 // 5 - 1  # the first of 85 is given
    steps = [schedule.active_chunks(now, 0, chunks) for now in range(schedule.total_steps(chunks))]
    work = sum(1e-12 * flops(5 + 5 * len(present)) for present in steps)
    assert len(steps) == 445
    assert work / 1000 == near(26.7)


def test_weights_take_what_their_numbers_say(model):
    vae = model.vae
    assert isinstance(vae, OpenSoraVAE)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in vae.named_children()}
    assert count == {"spatial_vae": 83_653_863, "temporal_vae": 309_687_144}
    assert meta_model.module_bytes(model.transformer) == near(2.42e9)
    assert meta_model.module_bytes(vae) == 2 * (393_341_007 + 8)


@pytest.mark.integration
def test_the_memory_of_a_video_is_the_texts_keys_and_values_of_56_blocks(model):
    """155 MB of a prompt of 300 tokens and its null embedding."""
    setting = METHODS["pa"](30, 30, 5, True)
    counted = meta_model.estimate_sampling_memory(
        model, meta_model.MemoryCase(setting, ExecutionConfig(context_cache="reuse"), 7.0, 5, 5), CUDA
    )
    assert counted.constants == near(155e6)
    assert counted.kv_cache == near(28 * 2 * 2 * 5 * TOKENS * 1152 * 2)


@pytest.mark.integration
def test_the_vae_takes_20_tflop_for_17_frames(model):
    vae = model.vae
    assert isinstance(vae, OpenSoraVAE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(blank(1, 5, 4, 30, 53))
    assert tflop(counter) == near(3.81 + 16.45)
    with FlopCounterMode(display=False) as counter:
        vae.encode(blank(1, 17, 3, 240, 424))
    assert tflop(counter) == near(7.25 + 3.35)
