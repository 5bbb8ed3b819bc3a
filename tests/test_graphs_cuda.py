"""Steps captured and replayed on a GPU: the eager video, in bounded memory. Skipped without CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.exact import NOISE, SCHEDULES, Mixing, build_solver, every_method, sigmas_of
from support.gpu import needs_gpu
from support.models import EXECUTION
from support.requests import make_request
from torch import Tensor

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.sampling.cuda_graphs import GraphCapturer, choose_graphs
from pavdm_cli.sampling.loop import SamplerState, denoise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import euler

pytestmark = needs_gpu
STEPS = {"pa": 6, "rn": 3, "rw": 3, "fifo": 14}


def states(schedule: Schedule, graph_capturer: GraphCapturer | None) -> list[SamplerState]:
    sigmas = sigmas_of(schedule).cuda()
    return list(
        denoise(
            schedule, Mixing(), NOISE, build_solver(sigmas), chunks=schedule.capacity + 3, graph_capturer=graph_capturer
        )
    )


@every_method
def test_a_replayed_video_is_the_eager_one_in_every_state(schedule: Schedule) -> None:
    graph_capturer = choose_graphs("on", torch.device("cuda"), 1)
    for eager, replayed in zip(states(schedule, None), states(schedule, graph_capturer), strict=True):
        assert torch.equal(eager.window, replayed.window)
        assert torch.equal(eager.context, replayed.context)


class Reading(Mixing):
    """A denoiser that asks the GPU for a number at every step."""

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        return super().__call__(window, levels, memory) * levels.max().item()


def capture_reading() -> None:
    graph_capturer, sigmas = choose_graphs("on", torch.device("cuda"), 1), sigmas_of(SCHEDULES["pa"]).cuda()
    list(denoise(SCHEDULES["pa"], Reading(), NOISE, build_solver(sigmas), chunks=2, graph_capturer=graph_capturer))


def test_reading_a_value_back_cannot_be_captured() -> None:
    """In a process of its own: a capture that failed leaves torch's allocator in the middle of it."""
    code = "import test_graphs_cuda as tests; tests.capture_reading()"
    here = {"cwd": Path(__file__).parent, "env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}}
    result = subprocess.run([sys.executable, "-c", code], **here, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "capture" in result.stderr.lower()


@pytest.mark.parametrize("method", ["pa", "rn", "rw", "fifo"])
@pytest.mark.parametrize("overlap", [True, False])
def test_pocket_replayed_is_pocket_and_its_graphs_are_small(method: str, overlap: bool) -> None:
    def job(cuda_graphs: str) -> GenerationConfig:
        engine = ExecutionConfig(cuda_graphs=cuda_graphs)
        sampling = {"method": method, "steps": STEPS[method], "overlap": overlap, "device": "cuda", "execution": engine}
        return resolve(make_request("a red ball over hills", frames=96, **sampling))

    model = pipeline.open_model(job("off"))
    eager = list(pipeline.sample_latents(job("off"), model))
    graph_capturer = pipeline.choose_graph_capturer(job("on"), model)
    assert graph_capturer is not None
    for left, right in zip(
        eager, pipeline.sample_latents(job("on"), model, graph_capturer=graph_capturer), strict=True
    ):
        assert torch.equal(left, right)
    assert graph_capturer.count > 0
    assert graph_capturer.bytes < 2**30


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch says that it is a prototype, whoever asks
def test_no_step_waits_for_anything_while_the_window_fills_stays_full_and_empties() -> None:
    job = resolve(make_request("a red ball over hills", frames=96, device="cuda"))
    chunks = job.schedule.capacity + 3
    model = pipeline.open_model(job)
    levels = pipeline.make_levels(job).to("cuda")
    denoiser = model.denoiser(job.formatted_prompt.text, job.schedule, levels, job.guidance_scale, EXECUTION)
    fresh = torch.ones(model.noise_shape())  # on the host, as all noise
    graph_capturer = pipeline.choose_graph_capturer(job, model)
    steps = denoise(
        job.schedule, denoiser, lambda *_: fresh, euler(levels), chunks=chunks, graph_capturer=graph_capturer
    )
    next(steps)  # the graphs are recorded here
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(steps)) == job.schedule.total_steps(chunks) - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
