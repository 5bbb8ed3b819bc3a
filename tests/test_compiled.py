"""Blocks under torch.compile: the eager video within rounding, few graphs, no breaks, clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from support import guard
from support.exact import build_solver
from support.models import EXECUTION, MODELS
from support.requests import make_request
from support.tape import Tape
from support.tiers import long
from support.tiny import tiny_pocket, tiny_runner
from test_bench_released import SMALL
from torch import Tensor
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.bench import ablate
from pavdm_cli.errors import DeviceError
from pavdm_cli.models import torch_compile as compiling
from pavdm_cli.models.execution import REFERENCE, ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.stdit import compiled_block, transformer
from pavdm_cli.models.stdit import loaded as stdit_loaded
from pavdm_cli.models.stdit.denoiser import compute_modulation
from pavdm_cli.models.stdit.layers import AttentionAxis
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, seeded_noise
from pavdm_cli.sampling.schedule import METHODS
from pavdm_kernels import kernels_enabled, temporal_attention, use_reference

SPEC = replace(MODELS["pocket"], name="tiny", folder=Path(), size=(16, 24), window=6, chunk=2, steps=6)
ON = replace(EXECUTION, compile=True)


@pytest.fixture(scope="module")
def model() -> ModelRunner:
    pocket = tiny_pocket().requires_grad_(False)
    return tiny_runner(SPEC, pocket)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.Graph]]:
    """Every graph that is made, none built by a compiler; forgotten before and after."""
    graphs: list[torch.fx.Graph] = []

    def keep(module: torch.fx.GraphModule, _: object):
        graphs.append(module.graph)
        return module.forward

    torch._dynamo.reset()
    run = compiled_block.compile_block.__wrapped__(keep)
    monkeypatch.setattr(stdit_loaded, "compile_block", lambda: run)
    yield graphs
    torch._dynamo.reset()


def video(model: ModelRunner, engine: ExecutionConfig, method: str = "pa", guidance: float = 2.0, **options) -> Tensor:
    schedule, sigmas = METHODS[method](6, 6, 2), linear_sigmas(6)
    denoiser = model.denoiser("a red ball over hills", schedule, noise_levels(sigmas), guidance, engine)
    noise = seeded_noise(1, model.noise_shape())
    return torch.cat(list(sample(schedule, denoiser, noise, build_solver(sigmas), chunks=5, **options)), 1)


def breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


# growth, steady state and drain: over space; over time without a memory and with one (pa), or after clean frames
GRAPHS = {
    "pa": (ON, 3),
    "plain": (replace(REFERENCE, compile=True), 3),
}


@pytest.mark.parametrize("case", ["pa", *long("plain")])
@pytest.mark.integration
def test_a_whole_video_takes_a_graph_for_each_kind_of_block_and_no_breaks(model, traced, case) -> None:
    engine, graphs = GRAPHS[case]
    method, before = case if case in METHODS else "pa", breaks()
    compiled = video(model, engine, method)
    torch.testing.assert_close(compiled, video(model, replace(engine, compile=False), method), rtol=0, atol=1e-4)
    video(
        model, replace(engine, cache_modulation=False, cache_text=False), method, guidance=3.0
    )  # another needs no more
    assert len(traced) == graphs
    assert breaks() == before
    linears = 6 if engine.fused_kernels else 0  # of oneDNN, one operation each
    assert [launched(graph) for graph in traced] == [["pavdm.linear.default"] * linears] * graphs


def launched(graph: torch.fx.Graph) -> list[str]:
    """Our own operations in a graph."""
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return [name for name in names if name.startswith("pavdm.")]


@pytest.mark.usefixtures("traced")
def test_a_graph_of_fast_operations_does_not_stand_for_references() -> None:
    form = torch.compile(lambda x: x + 2 if kernels_enabled() else x + 1, backend="eager", fullgraph=True)
    nothing = torch.zeros(1)
    assert form(nothing) == 2
    with use_reference():
        assert form(nothing) == 1
    assert form(nothing) == 2


def test_kernels_are_opaque_to_the_compiler(model, traced, monkeypatch) -> None:
    guard.install(monkeypatch)
    for name in ("modulate", "gate_residual_modulate", "qk_norm_rope", "temporal_attention"):
        monkeypatch.setattr(import_module(f"pavdm_kernels.{name}"), "use_kernel", lambda x: True)  # as on a GPU
    monkeypatch.setattr(transformer.STDiT, "precompute_vectors", lambda network, modulation: modulation)
    sigmas, window = linear_sigmas(6), torch.randn(1, 2, 4, 2, 3, generator=torch.Generator().manual_seed(1))
    outs = [
        model.denoiser("a red ball", METHODS["pa"](6, 6, 2), noise_levels(sigmas), 1.0, engine)(window, LEVELS, None)
        for engine in (ON, EXECUTION)
    ]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-5)
    spatial, temporal = (sorted(set(launched(graph))) for graph in traced)
    assert spatial == [f"pavdm.{name}.default" for name in ("gate_residual_modulate", "linear", "qk_norm_rope")]
    assert temporal == [*spatial, "pavdm.temporal_attention.default"]


LEVELS = torch.tensor([6, 6], dtype=torch.int32)


@pytest.mark.integration
def test_compiled_steps_can_be_recorded(model, traced) -> None:
    graph_capturer = GraphCapturer(Tape())
    assert torch.equal(video(model, ON, graph_capturer=graph_capturer), video(model, ON))
    assert graph_capturer.backend.replays > 0


@pytest.fixture
def builder() -> Iterator[None]:
    """The compiler itself, in this process; what it built in an earlier run of the tests it may take from its cache."""
    if reason := compiling.missing_requirement(torch.device("cpu")):
        pytest.skip(f"needs {reason[0]}")
    from torch._inductor import config

    torch._dynamo.reset()
    torch._dynamo.utils.clear_compilation_metrics()
    compiled_block.compile_block.cache_clear()
    with config.patch(compile_threads=1):
        yield
    torch._dynamo.reset()
    compiled_block.compile_block.cache_clear()


@pytest.mark.integration
def test_what_the_compiler_builds_gives_what_the_block_gives(model, builder) -> None:
    network, frames = model.transformer, torch.randn(2, 4, 6, 32, generator=torch.Generator().manual_seed(1))
    table, text = compute_modulation(network, 1000 * linear_sigmas(6), 8.0), network.encode_text(torch.ones(2, 5, 16))
    levels, before = torch.tensor([3, 3, 6, 6], dtype=torch.int32), compiling.compile_stats()
    with torch.no_grad():
        for length in (4, 2):
            axis = AttentionAxis(partial(temporal_attention, kv_cache=None), network.rope(2, length))
            inputs = (frames[:, :length].contiguous(), levels[:length], table)
            eager = network.run_blocks(*inputs, text, [axis])
            built = network.run_blocks(*inputs, text._replace(run_block=compiled_block.compile_block()), [axis])
            torch.testing.assert_close(built, eager, rtol=0, atol=1e-5)
    assert compiling.compile_stats()["graphs"] == before["graphs"] + 1
    assert compiling.compile_stats()["seconds"] > before["seconds"]


def test_a_compiler_that_fails_is_one_line(model, monkeypatch) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: object) -> None:
        raise RuntimeError("Something went wrong\n  fatal error: omp.h: No such file\nmore")

    torch._dynamo.reset()
    run = compiled_block.compile_block.__wrapped__(broken)
    monkeypatch.setattr(stdit_loaded, "compile_block", lambda: run)
    with pytest.raises(DeviceError, match=r"--compile failed: error: omp.h: No such file$") as excinfo:
        video(model, ON)
    assert excinfo.value.hint == "omit --compile; frames may differ in the last bits"


def test_a_missing_compiler_is_an_error_that_says_what_to_install(monkeypatch) -> None:
    from torch._inductor import config

    assert compiling.missing_requirement(torch.device("mps")) == ("a CPU or CUDA", "omit --compile on mps")
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        result = CliRunner().invoke(app, ["generate", "a red ball", "--compile", "--frames", "2", "--device", "cpu"])
    assert isinstance(result.exception, DeviceError)
    assert (result.exception.exit_code, result.exception.message) == (
        6,
        "--compile needs a C++ compiler, and there is none",
    )
    assert "apt install g++" in result.exception.hint
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(DeviceError, match=r"needs (a C\+\+ compiler|Python's headers)"):
        compiling.check_compile(True, torch.device("cpu"))
    compiling.check_compile(False, torch.device("cpu"))


def test_the_ladder_ends_with_compiled_blocks_and_on_a_gpu_with_graphs(monkeypatch) -> None:
    ran: list[transformer.Block] = []

    def run(block: transformer.Block, *args):
        ran.append(block)
        return block(*args)

    monkeypatch.setattr(stdit_loaded, "compile_block", lambda: run)
    sampling = {"model": "opensora-v1.2", "seed": 1, "threads": 1, "execution": ON}
    rungs = ablate.rungs_of(True, torch.device("cuda"))
    assert list(rungs) == [*ablate.RUNGS, "+ graphs", "+ compile"]
    monkeypatch.setattr(ablate, "missing_requirement", lambda device: ("a compiler", ""))
    assert list(ablate.rungs_of(False, torch.device("cpu"))) == [*ablate.RUNGS]
    row = ablate.ablate(make_request("a", seconds=1, **sampling), SMALL, 1, lambda units: None)
    last, before = row["ladder"][-1], row["ladder"][-2]
    depth = dict(SMALL.video_model.sizes)["depth"]
    assert (last["rung"], len(ran)) == ("+ compile", 2 * 2 * depth)  # once to warm up, once timed
    assert last["deviation"] == before["deviation"]


def test_a_rung_is_replayed_as_it_is(model) -> None:
    denoiser = model.denoiser("a red ball", METHODS["pa"](6, 6, 2), noise_levels(linear_sigmas(6)), 1.0, EXECUTION)
    window = torch.randn(1, 2, 4, 2, 3, generator=torch.Generator().manual_seed(1))
    plain = ablate.Rung(partial(denoiser, window, LEVELS, None), None)
    tape = Tape()
    again = ablate.with_graph(plain, tape)
    assert torch.equal(plain.step(), again.step())
    assert tape.replays == 1
