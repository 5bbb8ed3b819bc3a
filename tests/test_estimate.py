"""`--plan` estimates the time: operations of every step, counted, over the rate that this device reaches now."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from support.command import pavdm
from support.requests import make_request
from support.tiers import integration, long
from torch.utils.flop_counter import FlopCounterMode

from pavdm_cli.bench import estimate
from pavdm_cli.bench.estimate import decode_tflop, denoise_tflop, pass_sizes
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.memory_plan import meta_model_of
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import REFERENCE

PROMPT = "a red balloon drifting over green hills at sunset"
CPU = torch.device("cpu")


def job_of(frames: int = 40, **sampling):
    return resolve(make_request(PROMPT, frames=frames, device="cpu", threads=1, **sampling))


@pytest.mark.parametrize("sampling", [{}, {"steps": 6}, {"method": "rn"}, {"context": 0}, {"method": "fifo"}])
def test_every_step_is_counted_at_its_size(sampling):
    job = job_of(**sampling)
    sizes, schedule = pass_sizes(job), job.schedule
    assert sum(sizes.values()) == job.total_steps
    chunks = (job.total_steps - schedule.steps) // schedule.stride + 1
    visits = sum(noisy * count for (noisy, _), count in sizes.items()) / schedule.chunk
    assert visits == chunks * schedule.steps  # each chunk is denoised `steps` times
    assert max(clean for _, clean in sizes) <= schedule.sink_and_context


@pytest.mark.parametrize(
    "sampling",
    [
        {"steps": 6},
        {"guidance": 3.0, "steps": 6},
        *integration({"method": "rn"}, {"loop": True, "frames": 48}),
        *long({}, {"context": 0}),
    ],
)
def test_the_operations_are_those_that_torch_counts(sampling):
    job = job_of(**{"frames": 16, "warmup": 0, "execution": replace(REFERENCE, context_cache="auto")} | sampling)
    model = pipeline.open_model(job)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        list(pipeline.sample_latents(job, model))
    ours = denoise_tflop(job, model)
    assert ours == pytest.approx(counter.get_total_flops() * 1e-12, rel=0.12)  # torch counts text and tables too


def test_the_operations_of_decoding_are_those_of_the_model_with_weights():
    job = job_of()
    model = pipeline.open_model(job)
    latents = torch.zeros(1, job.layout.unit, *model.noise_shape()[1:])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.vae.decode(latents)
    assert decode_tflop(meta_model_of(job)) == pytest.approx(counter.get_total_flops() * 1e-12, rel=0.06)  # fused there


def test_the_estimate_follows_length_steps_and_rate(monkeypatch):
    monkeypatch.setattr(estimate, "quick_rate", lambda device, dtype: 0.1)
    short, longer = (estimate.estimate(job_of(frames), 1000 * frames) for frames in (80, 800))
    assert 8 < longer.seconds["denoise"] / short.seconds["denoise"] < 10.5
    assert longer.seconds["decode"] == pytest.approx(10 * short.seconds["decode"])
    assert longer.seconds["write"] == pytest.approx(10 * short.seconds["write"])
    two_passes = estimate.estimate(job_of(80, guidance=3.0), 80_000)
    assert two_passes.seconds["denoise"] == pytest.approx(2 * short.seconds["denoise"])
    assert short.low < short.total < short.high
    monkeypatch.setattr(estimate, "quick_rate", lambda device, dtype: 0.2)
    assert estimate.estimate(job_of(80), 80_000).seconds["denoise"] == pytest.approx(short.seconds["denoise"] / 2)


def test_a_device_that_was_never_measured_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(estimate, "quick_rate", lambda device, dtype: 0.1)
    job = job_of()
    result = estimate.estimate(replace(job, spec=replace(job.spec, efficiency={})), 1000)
    assert "never measured on such a device" in estimate.lines(result)[-1][1]
    assert estimate.figures(result)["calibrated"] is False


@pytest.mark.parametrize(("rate", "is_slow"), [(1e-6, True), (0.1, False)])
def test_a_plan_of_days_on_a_cpu_says_that_a_gpu_is_needed(rate, is_slow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "quick_rate", lambda device, dtype: rate)
    result = pavdm(
        "generate", f"{PROMPT} {'by day ' * 500}", "--plan", "--device", "cpu", "--frames", "20", "--seed", "1"
    )
    assert ("pocket needs a GPU: on this CPU the video would take about" in result.err) == is_slow
    assert (" days" in result.out) == is_slow
    assert max(map(len, result.out.splitlines())) < 200


def test_the_plan_tells_time_as_text_and_json_and_loads_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "open_runner", lambda *args, **named: pytest.fail("loaded"))
    words = ("generate", PROMPT, "--plan", "--threads", "1", "--device", "cpu", "--frames", "20", "--seed", "1")
    text = pavdm(*words)
    assert text.code == 0, text.err
    table = text.out.partition("\n\ntime (estimate)\n")[2].partition("\n\nsettings\n")[0]
    names = [line.split()[0] for line in table.splitlines()]
    assert names == ["load", "denoise", "decode", "write", "total"]
    plan = json.loads(pavdm(*words, "--json", "-n", "3").out)
    assert plan["videos"] == 3
    assert plan["fits"] is True
    assert plan["time"]["low_seconds"] < plan["time"]["estimated_seconds"] < plan["time"]["high_seconds"]
    assert sum(plan["time"]["parts_seconds"].values()) == pytest.approx(plan["time"]["estimated_seconds"], abs=0.02)
    assert list(tmp_path.iterdir()) == []
