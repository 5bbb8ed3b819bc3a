"""Every operation's kernel against its reference in float64, run by Triton's interpreter on a CPU."""

from __future__ import annotations

import itertools
import math
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

pytest.importorskip("triton", reason="Triton has no wheel for this platform", exc_type=ModuleNotFoundError)

import test_train_losses as training
from support import guard

from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_kernels.jit import DTYPES, Call, jit, runs_kernel, split
from pavdm_kernels.op import Draw, Op
from pavdm_kernels.ops import OPS

if TYPE_CHECKING:
    import triton.language as tl

BY_NAME = {op.name: op for op in OPS}
PROGRAMS = 40  # a case may run: one takes the interpreter 8 to 40 ms
CASES = [
    pytest.param(op, case, id="-".join([op.name, *(f"{key}{size}" for key, size in case.items())]))
    for op in OPS
    for case in op.cases
]


@pytest.fixture(autouse=True)
def as_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """Bfloat16 is rounded as on a GPU, and memory that was not written yet holds NaN."""
    guard.install(monkeypatch)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def widen(arguments):
    """The same numbers in float64."""

    def double(x):
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return tree_map(double, arguments)


def error(op: Op, arguments) -> float:
    """The largest of the kernel, as a share of the largest value that the reference gives in float64."""
    got = tree_leaves(op.launch(*op.flat(*arguments)))
    want = tree_leaves(op.reference(*widen(arguments)))
    assert [x.shape for x in got] == [x.shape for x in want]
    return max(share(*pair) for pair in zip(got, want, strict=True))


def share(got: Tensor, want: Tensor) -> float:
    """NaN where any value is."""
    return float((got.double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_kernel_computes_what_the_reference_does(op: Op, case, dtype: torch.dtype) -> None:
    arguments = op.make(case, Draw(dtype))
    call, _ = op.call(*op.flat(*arguments))
    assert math.prod(call.programs) <= PROGRAMS
    assert error(op, arguments) <= op.tolerances[dtype]


def test_angles_do_not_come_from_the_fast_exponential_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 it is off by up to 2^-22 of the value: 2e-4 of a radian where the angle is 1000."""
    exact = guard.Builder.create_exp

    def approximate(self, x):
        out = exact(self, x)
        return guard.Handle(out.data * np.float32(1 + 2**-22), out.dtype) if str(out.dtype.scalar) == "fp32" else out

    monkeypatch.setattr(guard.Builder, "create_exp", approximate)
    op = BY_NAME["timestep_embedding"]
    assert error(op, op.make(op.cases[0], Draw(torch.float32))) <= op.tolerances[torch.float32]


def test_the_interpreter_rounds_as_a_gpu_does() -> None:
    op, values = BY_NAME["euler_step"], torch.tensor([1.999, -1.999, 1.00390625, 1.01171875, torch.inf, torch.nan])
    z = values.view(1, -1, 1, 1, 1)
    narrow = torch.empty_like(z, dtype=torch.bfloat16)
    call, _ = op.call(z, torch.zeros_like(z), torch.zeros(6, dtype=torch.int32), torch.zeros(1))
    call._replace(arguments={**call.arguments, "OUT": narrow}).run()
    assert torch.equal(narrow.flatten().nan_to_num(7.0), values.bfloat16().nan_to_num(7.0))


def test_arithmetic_that_forgets_to_widen_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(8, dtype=torch.bfloat16)
    with pytest.raises(Exception, match=r"widen it with .to\(tl.float32\) first"):
        Call(careless_kernel, (1,), {"X": x}, 1).run()


@jit
def careless_kernel(X):
    """Adds numbers as they are stored."""
    place = X + tl.arange(0, 8)
    tl.store(place, tl.load(place) + tl.load(place))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_torch_accepts_the_registration(op: Op) -> None:
    torch.library.opcheck(op.launch, op.flat(*op.make(op.cases[-1], Draw(torch.float32))))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What models call decides as it would for tensors on a GPU."""
    for op in OPS:
        module = sys.modules[op.function.__module__]
        monkeypatch.setattr(module, "runs_kernel", lambda x: runs_kernel(SimpleNamespace(is_cuda=True, dtype=x.dtype)))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that ran, in order."""
    names: list[str] = []
    run = Call.run
    monkeypatch.setattr(Call, "run", lambda call: (names.append(call.kernel.function.__name__), run(call)))
    return names


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.usefixtures("on_a_gpu")
def test_without_gradients_a_gpu_runs_the_kernel(op: Op, launches: list[str]) -> None:
    arguments = op.make(op.cases[-1], Draw(torch.float32))
    with torch.no_grad():
        got = tree_leaves(op.function(*arguments))
    assert launches == [f"{op.name}_kernel"]
    want = tree_leaves(op.reference(*arguments))
    assert [(x.dtype, x.shape) for x in got] == [(x.dtype, x.shape) for x in want]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.usefixtures("on_a_gpu")
def test_with_gradients_a_gpu_runs_the_reference(op: Op, launches: list[str]) -> None:
    first, second = (gradients(function, op) for function in (op.function, op.reference))
    assert launches == []
    assert len(first) > 0
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("name", training.CASES)
@pytest.mark.usefixtures("on_a_gpu")
def test_training_on_a_gpu_gives_the_recorded_losses_and_gradients(name: str, launches: list[str]) -> None:
    run = training.recorded(name)
    case = run, None, training.run_training(training.CASES[name](run), run)
    training.test_losses_are_the_recorded_ones(case)
    training.test_gradients_are_the_recorded_ones(case)
    assert launches == []


def gradients(function, op: Op) -> list[Tensor]:
    """Of the sum of squares of all outputs, for every input that can have one."""
    arguments = op.make(op.cases[-1], Draw(torch.float32))
    inputs = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    inputs = [x.requires_grad_() for x in inputs if x._base is None]
    total = sum(x.square().sum() for x in tree_leaves(function(*arguments)))
    return [x for x in torch.autograd.grad(total, inputs, allow_unused=True) if x is not None]


def test_only_numbers_a_kernel_knows_go_to_one() -> None:
    with torch.no_grad():
        chosen = [runs_kernel(SimpleNamespace(is_cuda=True, dtype=dtype)) for dtype in (*DTYPES, torch.float64)]
        assert chosen == [True, True, True, False]
        assert not runs_kernel(torch.zeros(1))


@pytest.mark.usefixtures("on_a_gpu")
def test_the_transformer_on_kernels_computes_what_it_does_without(launches: list[str]) -> None:
    config = STDiTConfig(hidden=32, depth=1, heads=2, in_channels=3, out_channels=3, text_width=5, text_length=4)
    model, draw = STDiT(config), Draw(torch.float32)
    for weight in model.state_dict().values():
        weight.copy_(draw.normal(*weight.shape) * weight.shape[-1] ** -0.5)
    z, levels = draw.normal(1, 2, 3, 2, 4), torch.tensor([0, 1], dtype=torch.int32)
    text = model.encode_text(draw.normal(1, 4, 5))
    results = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            table = model.table(torch.tensor([0.0, 1000.0]), torch.tensor(8.0))
            memory = model.remember(z, levels[:1].expand(2), table, text)
            results.append(model(z, levels, table, text, memory=memory))
    assert {f"{op.name}_kernel" for op in OPS if op.name != "euler_step"} == set(launches)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)


def swapped(one: str, other: str):
    return lambda given: {**given, one: given[other], other: given[one]}


def changed(name: str, change):
    return lambda given: {**given, name: change(given[name])}


BUGS = {
    "modulate-shift for scale": swapped("SHIFT", "SCALE"),
    "modulate-no row of the block": changed("SHIFT_ROW", torch.zeros_like),
    "modulate-level off by one": changed("LEVEL", lambda x: (x + 1) % 31),
    "modulate-eps forgotten": changed("eps", lambda eps: 0.1),
    "gate_residual_modulate-no gate": lambda given: {**given, "GATE": None, "GATE_ROW": None},
    "gate_residual_modulate-branch not added": changed("A", torch.zeros_like),
    "gate_residual_modulate-frames mixed up": changed("levels", lambda count: 1),
    "qk_norm_rope-other gain": swapped("Q_GAIN", "K_GAIN"),
    "qk_norm_rope-positions one late": changed("TURNS", lambda turns: turns.roll(1, 0)),
    "qk_norm_rope-turned the other way": changed("TURNS", lambda turns: turns * torch.tensor([1.0, -1.0])),
    "temporal_attention-last key forgotten": changed("keys", lambda keys: keys - 1),
    "temporal_attention-memory forgotten": lambda given: {**given, "MEMORY": None},
    "temporal_attention-keys for values": changed("memory_values", lambda offset: 0),
    "temporal_attention-natural exponent": changed("scale", lambda scale: scale * math.log(2)),
    "euler_step-level off by one": changed("LEVEL", lambda x: (x + 1) % 31),
    "timestep_embedding-sine first": changed("NUMBER", lambda t: t + math.pi / 2),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, run = BY_NAME[bug.partition("-")[0]], Call.run
    arguments = op.make(op.cases[0], Draw(torch.float32))
    monkeypatch.setattr(Call, "run", lambda call: run(call._replace(arguments=BUGS[bug](call.arguments))))
    assert not error(op, arguments) <= op.tolerances[torch.bfloat16]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_program_that_never_runs_is_noticed(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, run = op.make(op.cases[0], Draw(torch.float32)), Call.run
    fewer = lambda call: run(call._replace(programs=(call.programs[0] - 1, *call.programs[1:])))  # noqa: E731
    monkeypatch.setattr(Call, "run", fewer)
    assert math.isnan(error(op, arguments))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_block_is_narrower_than_what_its_threads_read_at_once(dtype: torch.dtype) -> None:
    sizes = {"B": 1, "T": 1, "S": 1, "N": 1, "gated": 1, "rotated": 1, "C": 0}
    for width in (24, 72, 128, 192, 576, 1152, 1872, 2880, 4096):
        call = built("modulate", {**sizes, "D": width}, dtype)
        given = call.arguments
        for columns in (given["HEAD"], *([given["TAIL"]] if given["HEAD"] < width else [])):
            assert columns * dtype.itemsize >= 512 * call.warps
    for width, frames, past in itertools.product((16, 32, 40, 64, 72, 96, 128), (1, 5, 20, 35, 70), (0, 1, 5, 35)):
        call = built("temporal_attention", {**sizes, "T": frames, "K": width, "C": past}, dtype)
        given = call.arguments
        for count in ("QUERIES", "KEYS", "REMEMBERED"):
            assert given[count] * (given["TAIL"] or given["HEAD"]) * dtype.itemsize >= 512 * call.warps
        call = built("qk_norm_rope", {**sizes, "K": width}, dtype)
        given = call.arguments
        narrowest = given["TAIL"] if given["HEAD"] < width else given["HEAD"]
        assert given["ROWS"] * narrowest * dtype.itemsize >= 512 * call.warps


def built(name: str, sizes: dict[str, int], dtype: torch.dtype) -> Call:
    op = BY_NAME[name]
    call, _ = op.call(*op.flat(*op.make(sizes, Draw(dtype, "meta"))))
    return call


def test_attention_over_time_reads_a_projection_where_it_lies() -> None:
    q, k, v = torch.empty(1, 4, 3, 3, 2, 16, device="meta").unbind(3)
    call, _ = BY_NAME["temporal_attention"].call(q, k, v, None)
    assert [call.arguments[name] is x for name, x in (("Q", q), ("K", k), ("V", v))] == [True] * 3
    call, _ = BY_NAME["qk_norm_rope"].call(q, k, (torch.empty(16, device="meta"),) * 2, None)
    assert [call.arguments[name] is x for name, x in (("Q", q), ("K", k))] == [True] * 2


def test_heads_whose_tokens_lie_too_far_apart_for_32_bits_are_copied() -> None:
    op = BY_NAME["qk_norm_rope"]
    shape, gains = (1, 1, 2, 1, 16), (torch.empty(16, device="meta"),) * 2
    for apart, used in ((2**24, 2**24), (2**26, 16)):
        q, k = (torch.empty_strided(shape, (2 * apart, 2 * apart, apart, 16, 1), device="meta") for _ in range(2))
        call, _ = op.call(q, k, gains, None)
        assert call.arguments["token_stride"] == call.arguments["Q"].stride(2) == used
        assert call.arguments["ROWS"] * used + 16 < 2**31


def test_two_blocks_hold_any_width() -> None:
    for width in range(2, 2100):
        head, tail = split(width)
        assert head & (head - 1) == tail & (tail - 1) == 0
        assert width <= head + (tail if head < width else 0)
    assert [split(width) for width in (1152, 1872, 1024, 192)] == [(1024, 128), (1024, 1024), (1024, 1), (256, 1)]
