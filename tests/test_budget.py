"""Memory plans: estimates without weights agree with the memory of real runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import published
from support.models import load, meta_of
from support.requests import make_request

from pavdm_cli.commands import run
from pavdm_cli.errors import DeviceError
from pavdm_cli.generation import memory_advice, memory_plan, memory_report, pipeline, provenance, write
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.device_errors import report_device_errors
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.memory_tracker import MemoryTracker, emulate_device
from pavdm_cli.models.meta_model import MemoryCase, estimate_sampling_memory, module_bytes
from pavdm_cli.models.opensora import config, text_encoder

pytestmark = pytest.mark.usefixtures("own_cache")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PROMPT = "a red balloon drifts over green hills"


def request_of(folder: Path | str, frames: int = 17 * 8, prompt: str = PROMPT, **options: object) -> Request:
    sampling = {"model": str(folder), "steps": 6, "seed": 1, "device": "cpu"} | options
    return make_request(prompt, frames=frames, size=(64, 72), **sampling)


def job(folder: Path | str, **options: object) -> GenerationConfig:
    return resolve(request_of(folder, **options))


def test_bytes_are_counted_until_they_are_freed_whatever_views_there_are():
    base = torch.zeros(1000)
    with MemoryTracker() as live:
        first = base + 1
        view = first[10:].reshape(2, -1)
        del first
        assert (live.now, live.peak) == (4000, 4000)
        second = view.double()
        assert (live.now, live.peak) == (4000 + 8 * 990, 4000 + 8 * 990)
        del view, second
        base[5:].add_(1)
        assert live.now == 0
        live.reset_peak()
        assert live.peak == 0


@pytest.mark.parametrize("cfg_batching", ["batched", "sequential"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_real_run_holds_what_was_counted_without_contents(folder, cfg_batching, reuse):
    config = job(
        folder, execution=ExecutionConfig(cfg_batching=cfg_batching, context_cache="reuse" if reuse else "recompute")
    )
    case = memory_plan.largest_step(config)
    assert (case.noisy, case.clean) == (30, 5)
    meta_model, model = meta_of(config, CPU), pipeline.open_model(config)
    counted, measured = estimate_sampling_memory(meta_model, case, CPU), estimate_sampling_memory(model, case, CPU)
    for part in ("constants", "kv_cache", "step"):
        assert getattr(counted, part) == pytest.approx(getattr(measured, part), rel=0.1), part
    assert measured.step > 1_000_000


@pytest.mark.parametrize("options", [{"cache_modulation": False, "overlap_decode": "on"}, {"offload": "model"}, {}])
def test_graphs_are_counted_where_steps_are_recorded(folder, options):
    edited = job(folder, method="rn", edit_ratio=0.0 if options else 0.3, cfg_batching="batched", **options)
    assert memory_plan.largest_step(edited).execution.cuda_graphs == "off"
    plain = job(folder, cfg_batching="batched")
    assert memory_plan.largest_step(plain).execution.cuda_graphs == "auto"


def test_offloading_is_named_without_the_options_that_it_does_not_go_with(folder, gpu):
    fast = ExecutionConfig(cuda_graphs="on", overlap_decode="on", compile=True)
    options = dict(memory_advice.propose_savings(on_gpu(folder, execution=fast)))
    named = "--offload model without --cuda-graphs on without --overlap-decode on without --compile"
    switches = options[named].execution
    assert (switches.offload, switches.cuda_graphs, switches.overlap_decode) == ("model", "auto", "off")
    assert not switches.compile
    assert "--offload model" in dict(memory_advice.propose_savings(on_gpu(folder)))


@pytest.mark.integration
def test_a_whole_run_stays_within_its_budget_and_near_it(folder):
    config = job(folder)
    plan = memory_plan.choose_plan(config)
    model = pipeline.open_model(plan.config)
    with MemoryTracker() as live:
        for _ in pipeline.generate_frames(plan.config, model):
            pass
    parts = plan.devices[0].parts
    beside = [sum(part[i] for name, part in parts.items() if "activ" in name or "clean" in name) for i in (2, 3)]
    beside = [size + parts["text KV and modulation"][2] for size in beside]
    assert 0.7 * max(beside) < live.peak < 1.1 * max(beside)


@pytest.mark.integration
def test_a_step_of_the_full_network_takes_thirteen_streams_on_a_gpu_and_half_of_that_in_two_passes():
    config = job("opensora-v1.2")
    config = replace(config, spec=replace(config.spec, size=(240, 424)))
    model = meta_of(config, CUDA)
    assert module_bytes(model.transformer) == 2 * (1_207_643_972 + 300 * 4096)
    stream = 2 * 35 * 405 * 1152 * 2  # bytes of the tokens' vectors: the MLP holds its inner ones twice, four as wide
    modes = [replace(config.execution, cfg_batching=way, cuda_graphs="off") for way in ("batched", "sequential")]
    sizes = [
        estimate_sampling_memory(model, MemoryCase(config.schedule, mode, 7.0, 30, 5), CUDA).step for mode in modes
    ]
    assert sizes == [pytest.approx(13 * stream, rel=0.02), pytest.approx(13 * stream / 2, rel=0.02)]


def test_the_text_encoder_takes_what_is_planned():
    with torch.device("meta"):
        small = text_encoder.build(published.T5)
        layer = text_encoder.build({"feed_forward_proj": "gated-gelu"} | text_encoder.XXL | {"num_layers": 1})
    assert text_encoder.parameter_count(published.T5) == sum(p.numel() for p in small.parameters())
    whole = sum(p.numel() for p in layer.parameters())
    assert text_encoder.parameter_count({"num_layers": 1}) == whole
    assert text_encoder.parameter_count({}) == 4_762_310_656
    ids = torch.zeros(1, 300, dtype=torch.int64, device="meta")
    with torch.no_grad(), emulate_device(CUDA, torch.float32), MemoryTracker() as live:
        layer(ids)
    assert text_encoder.activation_bytes({}, torch.float32) == pytest.approx(live.peak, rel=0.3)


@pytest.fixture
def gpu(monkeypatch):
    """As much free memory as a test likes, on a GPU that is not there; the host has plenty."""
    free = {"cuda": 10**12, "cpu": 10**12}
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: free[device.type])
    monkeypatch.setattr(memory_plan, "RESERVED", {"cuda": 0, "cpu": 0})
    return free


def on_gpu(folder: Path, options: dict[str, object] | None = None, **kwargs: object) -> GenerationConfig:
    """As `resolve` decides on a machine with a GPU."""
    on_cpu = job(folder, **kwargs)
    overlap = "on" if "overlap_decode" in on_cpu.auto_switches else on_cpu.execution.overlap_decode
    on_cuda = on_cpu.with_execution(device="cuda", overlap_decode=overlap)
    return replace(on_cuda, auto_switches=on_cpu.auto_switches, options=options or {})


def chosen(plan: memory_plan.MemoryPlan) -> tuple[str, int, str]:
    switches = plan.config.execution
    return switches.cfg_batching, switches.vae_batch_size, switches.vae_tiling


def test_the_batches_are_the_largest_that_fit(folder, gpu):
    config = on_gpu(folder)
    roomy = memory_plan.choose_plan(config)
    assert chosen(roomy) == ("batched", 4, "off")
    gpu["cuda"] = max(roomy.devices[0].needs)
    assert chosen(memory_plan.choose_plan(config)) == ("batched", 4, "off")
    gpu["cuda"] -= 1
    tight = memory_plan.choose_plan(config)
    assert chosen(tight) != ("batched", 4, "off")
    assert tight.fits
    assert max(tight.devices[0].needs) < max(roomy.devices[0].needs)
    assert memory_report.notes(config, tight.config)


@pytest.mark.integration
def test_pictures_are_decoded_in_tiles_where_nothing_else_fits_and_that_is_told(folder, gpu):
    config = on_gpu(folder).with_execution(overlap_decode="off", cfg_batching="batched")
    config = replace(config, spec=replace(config.spec, size=(320, 640)))
    tiles, whole = (
        memory_plan.estimate_plan(config.with_execution(vae_batch_size=1, vae_tiling=tiled)) for tiled in ("on", "off")
    )
    (need,), (more,) = ([plan.devices[0].needs[3]] for plan in (tiles, whole))
    assert need < 0.95 * more
    gpu["cuda"] = need
    plan = memory_plan.choose_plan(config)
    assert chosen(plan)[1:] == (1, "on")
    assert any("overlapping, blended tiles" in note for note in memory_report.notes(config, plan.config))
    model = load(job(folder).spec, CPU, execution=plan.config.execution)
    assert (model.vae.vae_batch_size, model.vae.tiled) == (1, True)
    assert provenance.collect_metadata(plan.config, model)["vae_tiling"] == "on"


def test_a_chunk_is_decoded_next_to_the_next_steps_only_where_both_fit(folder, gpu):
    config = on_gpu(folder).with_execution(vae_batch_size=1, cfg_batching="batched")
    beside, after = (memory_plan.estimate_plan(config.with_execution(overlap_decode=at)) for at in ("on", "off"))
    (_, _, step, both), (_, _, _, alone) = beside.devices[0].needs, after.devices[0].needs
    assert both == alone + beside.devices[0].parts["activations of a step"][2]
    gpu["cuda"] = both
    assert memory_plan.choose_plan(config).config.execution.overlap_decode == "on"
    gpu["cuda"] = max(alone, step)
    plan = memory_plan.choose_plan(config)
    assert plan.config.execution.overlap_decode == "off"
    assert any("does not overlap" in note for note in memory_report.notes(config, plan.config))


@pytest.mark.integration
def test_what_does_not_fit_is_rejected_by_its_largest_part_with_what_each_option_saves(folder, gpu):
    config = on_gpu(folder)
    switches = {"cfg_batching": "sequential", "vae_batch_size": 1, "offload": "sequential", "overlap_decode": "off"}
    least = memory_plan.choose_plan(config.with_execution(**switches))
    gpu["cuda"] = max(least.devices[0].needs)
    plan = memory_plan.choose_plan(config)
    assert not plan.fits
    error = memory_advice.build_memory_error(plan)
    assert error.exit_code == 6
    assert "to decode (mostly " in error.message
    assert "--offload sequential saves" in error.hint.split("; ")[0]
    assert "--offload model saves" in error.hint
    gpu["cuda"] = 1000
    hint = memory_advice.build_memory_error(memory_plan.choose_plan(config)).hint
    assert hint.startswith("nothing makes it fit: even with ")


def test_a_text_encoder_that_does_not_fit_can_read_on_the_host(folder, gpu, monkeypatch):
    monkeypatch.setattr(memory_plan, "text_bytes", lambda job: {"weights": 10**9})
    gpu["cuda"] = 10**8
    error = memory_advice.build_memory_error(memory_plan.choose_plan(on_gpu(folder)))
    assert "to encode text (mostly text encoder, weights, 1.0 GB)" in error.message
    assert error.hint.startswith("--text-device cpu saves")
    plan = memory_plan.choose_plan(on_gpu(folder, options={"text_device": "cpu"}))
    assert plan.fits
    assert [device_memory.device.type for device_memory in plan.devices] == ["cuda", "cpu"]
    assert plan.devices[1].needs == (10**9, 0, 0, 0)


def test_a_prompt_that_was_read_before_needs_no_text_encoder(folder):
    config = job(folder)
    assert "text encoder, weights" in memory_plan.estimate_plan(config).devices[0].parts
    model = pipeline.open_model(config)
    assert "text encoder, weights" not in memory_plan.estimate_plan(config).devices[0].parts
    model.text_encoder.encode([config.formatted_prompt.text])


def test_nothing_is_loaded_of_what_does_not_fit(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(pipeline, "open_model", None)
    least = request_of(
        folder, frames=17, execution=ExecutionConfig(cfg_batching="sequential", overlap_decode="off", vae_batch_size=1)
    )
    with pytest.raises(DeviceError, match=r"only 0\.0 MB is free"):
        run.generate_videos(replace(least, output=Output(tmp_path / "v.mp4")), as_json=False)
    assert not list(tmp_path.glob("v*"))


def test_a_plan_loads_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "open_model", None)
    run.generate_videos(request_of(folder), as_json=False, only_plan=True)
    assert "total on cpu" in capsys.readouterr().out
    run.generate_videos(make_request("a red ball", device="cpu"), as_json=True, only_plan=True)
    assert json.loads(capsys.readouterr().out)["fits"] is True


@pytest.mark.integration
def test_a_model_that_is_not_downloaded_is_planned_at_its_published_size(gpu, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "open_model", None)
    run.generate_videos(request_of("opensora-v1.2", frames=17), as_json=True, only_plan=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["devices"][0]["parts"]["text encoder, weights"][0] == 4 * text_encoder.parameter_count({})
    assert plan["devices"][0]["parts"]["transformer"][2] == 4 * (1_207_643_972 + 300 * 4096)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), "can't allocate memory"]
)
def test_a_lack_of_memory_in_a_run_is_one_line_and_what_is_finished_is_kept(error, folder, tmp_path, monkeypatch):
    raised = RuntimeError(error) if isinstance(error, str) else error

    def short(*args: object, **options: object):
        yield RenderedChunk(np.zeros((17, 64, 72, 3), np.uint8), None, None)
        raise raised

    monkeypatch.setattr(write, "render_chunks", short)
    config = job(folder)
    model = pipeline.open_model(config)
    with pytest.raises(DeviceError, match=r"ran out of memory: kept .*v\.partial\.mp4, 17 frames") as excinfo:
        write.write_video(
            config, model, Output(tmp_path / "v.mp4"), write.RunControl(lambda count: None, lambda: False)
        )
    assert "--offload model, --offload sequential, --cfg-batching sequential" in excinfo.value.hint
    assert (tmp_path / "v.partial.mp4").stat().st_size > 500


def test_other_errors_stay_what_they_are(folder):
    with pytest.raises(RuntimeError, match="a shape"), report_device_errors(job(folder)):
        raise RuntimeError("a shape does not fit")


def test_both_ways_of_guidance_give_the_same_video_up_to_rounding(folder):
    executions = [ExecutionConfig(cfg_batching=mode) for mode in ("batched", "sequential")]
    configs = [job(folder, frames=17 * 3, execution=execution) for execution in executions]
    batched, sequential = (torch.cat(list(pipeline.sample_latents(c, pipeline.open_model(c))), dim=1) for c in configs)
    assert (batched - sequential).abs().max() <= 1e-4 * batched.abs().max()
    assert batched.abs().max() > 0.1
    assert config.text_encoder_dtype(CPU) == torch.float32
