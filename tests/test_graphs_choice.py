"""Which steps are captured, on which devices, which options rule that out, and the notes about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from support.exact import Mixing
from support.requests import make_request
from support.tape import Tape
from test_graphs import assert_same, states
from torch import Tensor

from pavdm_cli.errors import DeviceError, UsageError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.sampling import cuda_graphs as module
from pavdm_cli.sampling.cuda_graphs import choose_graphs, require_cuda_for_graphs
from pavdm_cli.sampling.schedule import pa


def test_what_graphs_hold_is_counted_from_when_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = {"weights": 100, "cached": 50, "graphs": 0}

    @contextmanager
    def graph(device: object, **how: object) -> Iterator[None]:
        reserved["cached"] = 0  # as torch's own, for which it also collects what Python still holds
        yield

    def call() -> Tensor:
        reserved["graphs"] += 7
        return torch.zeros(1)

    fakes = {
        "graph": graph,
        "CUDAGraph": lambda: SimpleNamespace(replay=None),
        "graph_pool_handle": int,
        "device": nullcontext,
    }
    for name, fake in (fakes | {"memory_reserved": lambda: sum(reserved.values())}).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(module, "_warm_up", lambda call: None)
    backend = module.CudaGraphBackend(torch.device("cuda"))
    for num_bytes in (7, 14):
        reserved["cached"] = 50
        backend.capture(call)
        assert backend.bytes == num_bytes


def test_graphs_are_for_cuda_and_on_demand_an_error_elsewhere() -> None:
    cpu, metal = torch.device("cpu"), torch.device("mps")
    assert choose_graphs("auto", cpu, 9216) is None
    for device in (cpu, metal):
        with pytest.raises(DeviceError, match="needs CUDA") as excinfo:
            require_cuda_for_graphs(ExecutionConfig(cuda_graphs="on").cuda_graphs, device)
        assert "--cuda-graphs auto" in excinfo.value.hint
        assert excinfo.value.exit_code == 6
    require_cuda_for_graphs("on", torch.device("cuda"))


NEVER = {
    "uncached text": {"cache_text": False},
    "uncached .* timesteps": {"cache_modulation": False},
    "--offload": {"offload": "model"},
}


@pytest.mark.parametrize("option", [*NEVER, "--edit-ratio"])
def test_graphs_on_are_rejected_with_conflicting_options_and_auto_names_them(option: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "CudaGraphBackend", lambda device: Tape())
    options = {"method": "rn", "edit_ratio": 0.3} if option == "--edit-ratio" else {}

    def config(cuda_graphs: str) -> GenerationConfig:
        switches = {"cuda_graphs": cuda_graphs, **NEVER.get(option, {}), **options}
        return resolve(make_request("a red ball over hills", device="cpu", **switches))

    with pytest.raises(UsageError, match=f"--cuda-graphs on cannot be combined with {option}.*, wh") as excinfo:
        config("on")
    assert excinfo.value.exit_code == 2
    job = config("auto")
    on_cuda = SimpleNamespace(device=torch.device("cuda"), residual_values=lambda scale: 9216)
    graph_capturer = pipeline.choose_graph_capturer(job, on_cuda)
    assert graph_capturer is not None
    assert_same(states(pa(6, 6, 2), Mixing(), None), states(pa(6, 6, 2), Mixing(), graph_capturer))
    assert graph_capturer.count == 0
    assert re.match(f"no CUDA graphs: incompatible with {option}", graph_capturer.note)
    assert pipeline.choose_graph_capturer(config("off"), on_cuda) is None


def test_auto_records_the_steps_that_launching_holds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CudaGraphBackend", lambda device: Tape())
    cuda, open_sora = torch.device("cuda"), 2 * 405 * 1152  # 240x424 under guidance
    capturer = choose_graphs("auto", cuda, open_sora)
    assert capturer is not None
    assert capturer.note == "no CUDA graphs: the steps are not launch-bound"
    assert 10 <= capturer.max_latents < 15  # its first two windows
    assert choose_graphs("off", cuda, open_sora) is None
    always = choose_graphs("on", cuda, open_sora)
    assert always is not None
    assert always.max_latents == float("inf")
