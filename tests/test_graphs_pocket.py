"""The transformer's steps captured and replayed, on a CPU stand-in for CUDA graphs."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exact import build_solver
from support.models import EXECUTION, MODELS
from support.requests import make_request
from support.tape import Operations, waits
from support.tiers import integration
from support.tiny import tiny_pocket, tiny_runner
from test_graphs import assert_same, taped
from torch import Tensor

from pavdm_cli.generation import pipeline, write
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit import denoiser as bind
from pavdm_cli.models.stdit import transformer
from pavdm_cli.models.stdit.tensor_cache import no_cache
from pavdm_cli.sampling import loop, noise
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.denoiser import TimelineDenoiser
from pavdm_cli.sampling.loop import SamplerState, denoise, denoise_step
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, seeded_noise
from pavdm_cli.sampling.schedule import METHODS, Schedule, pa

SPEC = replace(MODELS["pocket"], name="tiny", folder=Path(), size=(16, 24), window=6, chunk=2, steps=6)


@pytest.fixture(scope="module")
def loaded() -> ModelRunner:
    pocket = tiny_pocket().requires_grad_(False)
    return tiny_runner(SPEC, pocket)


STEPS = {"pa": 6, "rn": 3, "rw": 3, "fifo": 7}  # of fifo, more than the model can hold


def pocket_states(
    loaded: ModelRunner, schedule: Schedule, guidance: float, graph_capturer: GraphCapturer | None
) -> list[SamplerState]:
    sigmas = linear_sigmas(schedule.steps)
    denoiser = loaded.denoiser("a red balloon over green hills", schedule, noise_levels(sigmas), guidance, EXECUTION)
    noise = seeded_noise(1, loaded.noise_shape())
    return list(
        denoise(
            schedule, denoiser, noise, build_solver(sigmas), chunks=schedule.capacity + 2, graph_capturer=graph_capturer
        )
    )


TRANSFORMED = [(method, overlap, 2.0) for method in ("pa", "rn", "rw", "fifo") for overlap in (True, False)]


@pytest.mark.parametrize(("method", "overlap", "guidance"), [*TRANSFORMED, ("pa", True, 1.0), ("rw", True, 1.0)])
def test_the_transformer_replayed_is_the_transformer(method: str, overlap: bool, guidance: float, loaded: ModelRunner):
    schedule = METHODS[method](STEPS[method], 6, 2, overlap)
    eager, calls, graph_capturer = pocket_states(loaded, schedule, guidance, None), list[int](), taped()
    spans = 2 if method == "fifo" else 1  # a window longer than the model can hold is shown in parts
    hook = loaded.transformer.register_forward_hook(lambda *_: calls.append(1))
    replayed = pocket_states(loaded, schedule, guidance, graph_capturer)
    hook.remove()
    assert_same(eager, replayed)
    assert min(graph_capturer.backend.lengths) > 50
    assert 2 * graph_capturer.count <= len(calls) <= 2 * graph_capturer.count * spans
    assert graph_capturer.backend.replays == len(eager)


def test_keys_and_values_have_one_buffer_that_is_filled_once_a_shift(
    loaded: ModelRunner, monkeypatch: pytest.MonkeyPatch
):
    filled: list[int] = []
    copy = Tensor.copy_

    def counting(buffer: Tensor, source: Tensor, **options: Any) -> Tensor:
        filled.extend([source.ndim] if options.get("non_blocking") else [])  # as only buffers are
        return copy(buffer, source, **options)

    schedule, graph_capturer = pa(6, 6, 2), taped()
    monkeypatch.setattr(Tensor, "copy_", counting)
    steps = len(pocket_states(loaded, schedule, 2.0, graph_capturer))
    shifts, recorded = 4, 3  # of those that have a memory
    assert filled.count(7) == shifts + recorded
    assert filled.count(5) == steps + graph_capturer.count


@pytest.mark.parametrize("method", ["pa", "rw", *integration("rn", "fifo")])
@pytest.mark.parametrize("graph_capturer", [None, taped()])
def test_a_steady_step_waits_for_nothing(
    method: str, graph_capturer: GraphCapturer | None, loaded: ModelRunner
) -> None:
    schedule = METHODS[method](STEPS[method], 6, 2)
    sigmas, fresh = linear_sigmas(schedule.steps), torch.ones(loaded.noise_shape())
    denoiser = loaded.denoiser("a red balloon over green hills", schedule, noise_levels(sigmas), 2.0, EXECUTION)
    steps = denoise(
        schedule,
        denoiser,
        lambda index, step=None, /: fresh,
        build_solver(sigmas),
        chunks=None,
        graph_capturer=graph_capturer,
    )
    list(islice(steps, schedule.steps + (schedule.context + 2) * schedule.stride))
    assert not waits(lambda: list(islice(steps, 2 * schedule.stride)))


@pytest.mark.parametrize("method", ["pa", "rw", *integration("rn", "fifo")])
@pytest.mark.parametrize("graph_capturer", [None, taped()])
def test_growth_and_drain_bring_levels_across_and_wait_for_nothing_else(
    method: str, graph_capturer: GraphCapturer | None, loaded: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, brought, copied = METHODS[method](STEPS[method], 6, 2), list[torch.dtype](), loop.to_device_like
    for module in (loop, noise):
        monkeypatch.setattr(
            module, "to_device_like", lambda given, like: brought.append(given.dtype) or copied(given, like)
        )
    sigmas, fresh = linear_sigmas(schedule.steps), torch.ones(loaded.noise_shape())
    denoiser = loaded.denoiser("a red balloon over green hills", schedule, noise_levels(sigmas), 2.0, EXECUTION)
    chunks = schedule.capacity + 3
    steps = denoise(
        schedule,
        denoiser,
        lambda index, step=None, /: fresh,
        build_solver(sigmas),
        chunks=chunks,
        graph_capturer=graph_capturer,
    )
    next(steps)  # what is recorded is recorded here
    brought.clear()
    states: list[SamplerState] = []
    waits_seen = waits(lambda: states.extend(steps))
    assert len(states) == schedule.total_steps(chunks) - 1
    assert waits_seen == ["tensor"] * brought.count(torch.int32)  # a copy from pinned memory, on a GPU


def test_positions_are_made_once_for_every_size_and_not_at_every_step(
    loaded: ModelRunner, monkeypatch: pytest.MonkeyPatch
):
    calls: list[tuple[str, object]] = []
    place, turn = transformer.position_embedding, transformer.Rope.forward

    def placing(grid: tuple[int, int], *rest: Any) -> Tensor:
        calls.append(("places", grid))
        return place(grid, *rest)

    def turning(self: transformer.Rope, start: int, frames: int, context: int = 0) -> Tensor:
        calls.append(("rope", (start, frames, context)))
        return turn(self, start, frames, context)

    monkeypatch.setattr(transformer, "position_embedding", placing)
    monkeypatch.setattr(transformer.Rope, "forward", turning)
    states = pocket_states(loaded, pa(6, 6, 2), 2.0, None)
    assert len(calls) == len(set(calls)) == 5  # one grid; windows of three sizes after the overlap, and the overlap
    monkeypatch.setattr(bind, "tensor_cache", lambda: no_cache)
    assert_same(states, pocket_states(loaded, pa(6, 6, 2), 2.0, None))
    assert len(calls) > 2 * len(states)


def test_a_step_on_a_cpu_calls_references_and_none_of_our_operations(loaded: ModelRunner) -> None:
    sigmas, window = linear_sigmas(6), torch.zeros(1, 2, *loaded.noise_shape()[1:])
    denoiser = loaded.denoiser("a red balloon over green hills", pa(6, 6, 2), noise_levels(sigmas), 2.0, EXECUTION)
    levels, cache = torch.tensor([6, 6], dtype=torch.int32), denoiser.prefill(window, 0)
    with Operations(lambda name: None) as seen:
        denoise_step(window, levels, cache, (), denoiser=denoiser, solver=build_solver(sigmas))
    called = {operation._schema.name for operation, *_ in seen.noted}
    assert {"aten::native_layer_norm", "aten::addcmul"} <= called
    assert not [name for name in called if name.startswith("pavdm::")]


def test_how_many_graphs_there_are_and_what_they_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_capturer = taped()
    monkeypatch.setattr(pipeline, "choose_graphs", lambda *asked: graph_capturer)
    sampling = {"steps": 4, "window": 4, "warmup": 0, "device": "cpu", "threads": 1}
    job = resolve(make_request("a red ball over hills", frames=16, **sampling))
    control = write.RunControl(lambda frames: None, lambda: False)
    result = write.write_video(job, pipeline.open_model(job), Output(tmp_path / "video.mp4"), control)
    assert graph_capturer.count > 0
    assert result.notes == (f"{graph_capturer.count} CUDA graphs of {graph_capturer.bytes / 2**20:.0f} MB",)


@pytest.mark.parametrize("guidance", [2.0, *integration(1.0)])
@pytest.mark.parametrize("method", ["pa", *integration("rw", "fifo")])
def test_prompts_of_any_length_follow_one_another_in_captured_steps(method: str, guidance: float, loaded: ModelRunner):
    schedule, sigmas = METHODS[method](STEPS[method], 6, 2), linear_sigmas(STEPS[method])
    prompts = ("a red balloon over green hills", "a blue kite over green hills", "a boat at night")
    texts = [loaded.text_kv(loaded.embed(prompt, guidance != 1), schedule, EXECUTION) for prompt in prompts]
    bind = loaded.bind(schedule, noise_levels(sigmas), guidance, EXECUTION)
    denoiser = TimelineDenoiser(bind, lambda newest: texts[min(newest // 2, 2)])
    noise, solver = seeded_noise(1, loaded.noise_shape()), build_solver(sigmas)

    def run(graph_capturer: GraphCapturer | None) -> list[SamplerState]:
        return list(
            denoise(schedule, denoiser, noise, solver, chunks=schedule.capacity + 5, graph_capturer=graph_capturer)
        )

    graph_capturer = taped()
    eager = run(None)
    assert_same(eager, run(graph_capturer))
    assert graph_capturer.backend.replays == len(eager)
