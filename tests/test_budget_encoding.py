"""Memory plans include the VAE: for a conditioning clip, for re-encoded clips, and over time."""

from __future__ import annotations

import json
from dataclasses import astuple, replace

import pytest
import torch
from support.clips import grays, make
from support.command import pavdm
from support.models import meta_of
from support.tiers import integration
from test_budget import CPU, CUDA, chosen, gpu, job, on_gpu

from pavdm_cli.generation import memory_advice, memory_plan, pipeline, reencode
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import MemoryTracker, emulate_device
from pavdm_cli.models.meta_model import MemoryCase, VAEMemory, estimate_sampling_memory, estimate_vae_memory

__all__ = ("gpu",)
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.integration
def test_a_real_vae_holds_what_was_counted_without_contents(folder):
    config = job(folder)
    models = meta_of(config, CPU), pipeline.open_model(config)
    counted, measured = (astuple(estimate_vae_memory(model, CPU, frames=51, num_reencoded=5)) for model in models)
    assert counted == pytest.approx(measured, rel=0.1)
    assert min(measured) > 1_000_000


def test_what_is_encoded_first_stays_within_its_budget_and_near_it(folder):
    config = replace(job(folder), num_conditioning_frames=51)
    parts = memory_plan.choose_plan(config).devices[0].parts
    model, clip = pipeline.open_model(config), torch.zeros(51, 3, 64, 72)
    with MemoryTracker() as live:
        pipeline.state_after_clip(config, model, clip, renoise=True)
    assert 0.9 * parts["activations of the VAE"][1] < live.peak < 1.1 * parts["activations of the VAE"][1]
    assert parts["conditioning frames"] == (0, clip.nbytes, 0, 0)
    assert parts["transformer"][1] == parts["transformer"][2]
    assert parts["text KV and modulation"][1] == 0
    alone = memory_plan.choose_plan(job(folder)).devices[0]
    assert alone.needs[1] == 0
    assert "conditioning frames" not in alone.parts


@pytest.mark.integration
def test_frames_that_are_encoded_again_between_steps_are_planned_next_to_what_lies_there(folder):
    config = job(folder, method="rn", window=5)
    parts = memory_plan.choose_plan(config).devices[0].parts
    model = pipeline.open_model(config)
    with MemoryTracker() as live:
        reencode.reencode(model, torch.zeros(1, 5, *model.noise_shape()[1:]))
    assert 0.9 * parts["activations of the VAE"][1] < live.peak < 1.1 * parts["activations of the VAE"][1]
    assert parts["text KV and modulation"][1] == parts["text KV and modulation"][2] > 0
    assert memory_plan.choose_plan(job(folder, method="rn", window=5, frames=17)).devices[0].needs[1] == 0


def test_the_window_is_full_at_once_only_where_that_much_is_given(folder):
    cases = [
        memory_plan.largest_step(replace(job(folder, frames=17), num_conditioning_frames=count))
        for count in (0, 1, 17, 51, 119, 1700)
    ]
    assert [(case.noisy, case.clean) for case in cases] == [(5, 0), (5, 0), (5, 5), (15, 5), (30, 5), (30, 5)]


@pytest.mark.parametrize("frames", [1, 51, *integration(17)])
def test_a_clip_waits_on_the_host_and_a_group_of_it_is_encoded_at_a_time(folder, frames):
    vae = meta_of(job(folder), CUDA)
    group, whole = (estimate_vae_memory(vae, CUDA, frames=count).encoding for count in (17, frames))
    assert whole == group if frames >= 17 else whole < group
    model = pipeline.open_model(job(folder))
    sizes = []
    moments = model.vae.temporal_vae.moments
    model.vae.temporal_vae.moments = lambda codes: (sizes.append(codes.shape[2]), moments(codes))[1]
    model.vae.encode(torch.zeros(1, frames, 3, 64, 72))
    assert sizes == [min(frames, 17)] * -(-frames // 17)


def test_a_clip_is_encoded_in_less_where_it_does_not_fit_and_rejected_by_the_name_of_that_stage(
    folder, gpu, monkeypatch
):
    def counted(case, vae_batch_size, vae_tiling, coded):
        return VAEMemory(coded[0] * vae_batch_size * 10**8, 0, 0)

    monkeypatch.setattr(memory_plan, "_vae_memory", counted)
    config = replace(on_gpu(folder), num_conditioning_frames=17)
    gpu["cuda"] = 2 * 10**9
    assert chosen(memory_plan.choose_plan(replace(config, num_conditioning_frames=0)))[1] == 4
    plan = memory_plan.choose_plan(config)
    assert (plan.fits, chosen(plan)[1:]) == (True, (1, "off"))
    gpu["cuda"] = 10**9
    message = memory_advice.build_memory_error(memory_plan.choose_plan(config)).message
    assert " to encode frames (mostly activations of the VAE, 1.7 GB)" in message


@pytest.mark.integration
@pytest.mark.parametrize("size", [(240, 424), (720, 1280)])
def test_the_vae_over_time_takes_three_of_its_widest_tensors_and_less_than_any_step(size):
    config = job("opensora-v1.2", window=5, context=0)
    model = meta_of(replace(config, spec=replace(config.spec, size=size)), CUDA)
    shape, vae = (size[0] // 8, size[1] // 8), model.vae.temporal_vae
    z, codes = (torch.zeros(1, 4, count, *shape, device="meta", dtype=torch.bfloat16) for count in (5, 17))
    with torch.no_grad(), emulate_device(CUDA, torch.bfloat16), MemoryTracker() as live:
        peaks = [live.peak_bytes(lambda: vae.decode(z, 17)), live.peak_bytes(lambda: vae.moments(codes))]
    widest = 2 * 256 * 20 * shape[0] * shape[1]  # bytes
    assert max(peaks) < 3.3 * widest
    least = ExecutionConfig(cfg_batching="sequential", cuda_graphs="off", context_cache="recompute")
    step = estimate_sampling_memory(model, MemoryCase(config.schedule, least, 7.0, 5, 0), CUDA).step
    assert max(peaks) < step, "else it would have to work in tiles too where memory is short"


@pytest.mark.integration
def test_what_going_on_from_a_clip_takes_is_planned_and_nothing_is_loaded_or_written(folder, monkeypatch, tmp_path):
    clip = make(tmp_path / "v.mp4", grays(30, 64, 72))
    monkeypatch.setattr(pipeline, "open_model", None)
    monkeypatch.chdir(tmp_path)
    words = ("extend", clip, "-p", "a fox", "--model", folder, "--size", "72x64", "--device", "cpu", "--plan")
    code, out, _ = pavdm(*words)
    assert code == 0
    assert "total on cpu" in out
    plan = json.loads(pavdm(*words, "--json").out)
    assert plan["devices"][0]["parts"]["conditioning frames"] == [0, 17 * 3 * 4 * 64 * 72, 0, 0]
    assert json.loads(pavdm("extend", clip, "-p", "a red ball", "--plan", "--json").out)["fits"] is True
    assert list(tmp_path.glob("v*")) == [clip]
