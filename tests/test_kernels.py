"""Every kernel against its reference in float64, run by Triton's interpreter on a CPU."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

pytest.importorskip("triton", reason="Triton has no wheel for this platform", exc_type=ModuleNotFoundError)

import test_train_losses as training
import triton
import triton.language as tl
from support import guard
from support.wan import TINY, tiny_transformer

from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.models.wan.transformer import Conditioning
from pavdm_kernels.dispatch import DTYPES, use_kernel
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.op import Op, RandomInputs
from pavdm_kernels.ops import OPS

BY_NAME = {op.name: op for op in OPS}
MAX_PROGRAMS = 40  # of a case: one takes the interpreter 8 to 40 ms
CASES = [
    pytest.param(op, case, id="-".join([op.name, *(f"{key}{size}" for key, size in case.items())]))
    for op in OPS
    for case in op.test_sizes
]


def interpreted_cases() -> list[Any]:
    """All sizes in float32, an op's first in every dtype, its last in bfloat16; other pairs in `integration`."""
    cases = []
    for (op, sizes), name, dtype in ((case.values, case.id, dtype) for case in CASES for dtype in DTYPES):
        quick = dtype == torch.float32 or sizes is op.test_sizes[0]
        quick = quick or (dtype == torch.bfloat16 and sizes is op.test_sizes[-1])
        marks = [] if quick else [pytest.mark.integration]
        cases.append(pytest.param(op, sizes, dtype, id=f"{name}-{dtype}", marks=marks))
    return cases


@pytest.fixture(autouse=True)
def gpu_rounding(monkeypatch: pytest.MonkeyPatch):
    """Bfloat16 is rounded as on a GPU, and uninitialized memory holds NaN."""
    guard.install(monkeypatch)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def widen(arguments):
    """The same numbers in float64."""

    def double(x):
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return tree_map(double, arguments)


def prepared(op: Op, arguments) -> KernelLaunch:
    launch, _ = op.prepare_launch(*op.launch_arguments(*arguments))
    return launch


def relative_error(op: Op, arguments) -> float:
    """The kernel's largest error against the reference in float64, relative to its largest value; NaN if a value is."""
    outputs = tree_leaves(op.launch(*op.launch_arguments(*arguments)))
    exact = tree_leaves(op.reference(*widen(arguments)))
    assert [x.shape for x in outputs] == [x.shape for x in exact]
    return max(float((x.double() - y).abs().max() / y.abs().max()) for x, y in zip(outputs, exact, strict=True))


@pytest.mark.parametrize(("op", "sizes", "dtype"), interpreted_cases())
def test_the_kernel_equals_its_reference(op: Op, sizes: dict[str, Any], dtype: torch.dtype) -> None:
    arguments = op.make_inputs(sizes, RandomInputs(dtype))
    assert math.prod(prepared(op, arguments).grid) <= MAX_PROGRAMS
    assert relative_error(op, arguments) <= op.tolerances[dtype]


def test_angles_avoid_the_fast_float32_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's float32 exponential errs by up to 2^-22 of the value: 2e-4 radians at an angle of 1000."""
    exact = guard.Builder.create_exp

    def approximate(self, x):
        out = exact(self, x)
        return guard.Handle(out.data * np.float32(1 + 2**-22), out.dtype) if str(out.dtype.scalar) == "fp32" else out

    monkeypatch.setattr(guard.Builder, "create_exp", approximate)
    op = BY_NAME["timestep_embedding"]
    assert (
        relative_error(op, op.make_inputs(op.test_sizes[0], RandomInputs(torch.float32)))
        <= op.tolerances[torch.float32]
    )


def test_the_interpreter_rounds_as_a_gpu_does() -> None:
    op, values = BY_NAME["euler_step"], torch.tensor([1.999, -1.999, 1.00390625, 1.01171875, torch.inf, torch.nan])
    z = values.view(1, -1, 1, 1, 1)
    narrow = torch.empty_like(z, dtype=torch.bfloat16)
    launch = prepared(op, (z, torch.zeros_like(z), torch.zeros(6, dtype=torch.int32), torch.zeros(1)))
    launch._replace(arguments={**launch.arguments, "out_ptr": narrow}).run()
    assert torch.equal(narrow.flatten().nan_to_num(7.0), values.bfloat16().nan_to_num(7.0))


def test_arithmetic_in_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(8, dtype=torch.bfloat16)
    with pytest.raises(Exception, match=r"widen it with .to\(tl.float32\) first"):
        KernelLaunch(bfloat16_kernel, (1,), {"x_ptr": x}, 1).run()


@triton.jit
def bfloat16_kernel(x_ptr):
    """Adds in the dtype of the storage."""
    offs = x_ptr + tl.arange(0, 8)
    tl.store(offs, tl.load(offs) + tl.load(offs))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.integration
def test_the_custom_operation_passes_opcheck(op: Op) -> None:
    torch.library.opcheck(op.launch, op.launch_arguments(*inputs_of(op)))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations dispatch as for tensors on a GPU."""
    for op in OPS:
        module = sys.modules[op.function.__module__]
        monkeypatch.setattr(module, "use_kernel", lambda x: use_kernel(SimpleNamespace(is_cuda=True, dtype=x.dtype)))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that ran, in order."""
    names: list[str] = []
    run = KernelLaunch.run
    monkeypatch.setattr(KernelLaunch, "run", lambda launch: (names.append(launch.kernel.__name__), run(launch)))
    return names


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.usefixtures("on_a_gpu")
def test_without_gradients_a_gpu_runs_the_kernel(op: Op, launches: list[str]) -> None:
    arguments = inputs_of(op)
    with torch.no_grad():
        outputs = tree_leaves(op.function(*arguments))
    assert launches == [f"{op.name}_kernel"]
    expected = tree_leaves(op.reference(*arguments))
    assert [(x.dtype, x.shape) for x in outputs] == [(x.dtype, x.shape) for x in expected]


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
    training.test_losses_match_the_recording(case)
    training.test_gradients_match_the_recording(case)
    assert launches == []


def inputs_of(op: Op):
    return op.make_inputs(op.test_sizes[-1], RandomInputs(torch.float32))


def gradients(function, op: Op) -> list[Tensor]:
    """The gradients of the sum of squares of all outputs, for every input that can have one."""
    arguments = inputs_of(op)
    inputs = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    inputs = [x.requires_grad_() for x in inputs if x._base is None]
    total = sum(x.square().sum() for x in tree_leaves(function(*arguments)))
    return [x for x in torch.autograd.grad(total, inputs, allow_unused=True) if x is not None]


def test_only_supported_dtypes_run_kernels() -> None:
    with torch.no_grad():
        supported = [use_kernel(SimpleNamespace(is_cuda=True, dtype=dtype)) for dtype in (*DTYPES, torch.float64)]
        assert supported == [True, True, True, False]
        assert not use_kernel(torch.zeros(1))


@pytest.mark.usefixtures("on_a_gpu")
def test_the_transformer_on_kernels_equals_the_reference(launches: list[str]) -> None:
    config = STDiTConfig(hidden=32, depth=1, heads=2, in_channels=3, out_channels=3, text_width=5, text_length=4)
    model, random = STDiT(config), RandomInputs(torch.float32)
    for weight in model.state_dict().values():
        weight.copy_(random.normal(*weight.shape) * weight.shape[-1] ** -0.5)
    z, levels = random.normal(1, 2, 3, 2, 4), torch.tensor([0, 1], dtype=torch.int32)
    text = model.encode_text(random.normal(1, 4, 5))
    results = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            table = model.embed_timesteps(torch.tensor([0.0, 1000.0]), torch.tensor(8.0))
            memory = model.prefill(z, levels[:1].expand(2), table, text)
            results.append(model(z, levels, table, text, context_kv=memory))
    others = {"euler_step", "gate_residual", "gate_residual_norm", "rms_norm_rope"}
    assert {f"{op.name}_kernel" for op in OPS if op.name not in others} == set(launches)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("on_a_gpu")
def test_wan_on_kernels_equals_the_reference(launches: list[str]) -> None:
    model, random = tiny_transformer(), RandomInputs(torch.float32)
    z, levels = random.normal(1, 2, TINY.in_channels, 4, 4), torch.tensor([1, 0], dtype=torch.int32)
    results = []
    for enabled in (True, False):
        with torch.set_grad_enabled(not enabled):
            modulation = model.embed_timesteps(torch.tensor([0.0, 500.0]), torch.tensor(24.0))
            conditions = Conditioning(modulation, model.encode_text(torch.ones(1, 3, TINY.text_dim)))
            results.append(model(z, levels, conditions).detach())
    names = ("modulate", "gate_residual_norm", "gate_residual_modulate", "gate_residual", "rms_norm_rope")
    assert {f"{name}_kernel" for name in names} == set(launches)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)


def swapped(first: str, second: str):
    return lambda arguments: {**arguments, first: arguments[second], second: arguments[first]}


def changed(name: str, change):
    return lambda arguments: {**arguments, name: change(arguments[name])}


BUGS = {
    "modulate-shift for scale": swapped("shift_ptr", "scale_ptr"),
    "modulate-no bias": changed("shift_bias_ptr", torch.zeros_like),
    "modulate-level off by one": changed("level_ptr", lambda x: (x + 1) % 31),
    "modulate-wrong eps": changed("eps", lambda eps: 0.1),
    "gate_residual_modulate-no gate": lambda arguments: {**arguments, "gate_ptr": None, "gate_bias_ptr": None},
    "gate_residual_modulate-branch not added": changed("branch_ptr", torch.zeros_like),
    "gate_residual-branch not added": changed("branch_ptr", torch.zeros_like),
    "gate_residual-level off by one": changed("level_ptr", lambda x: (x + 1) % 31),
    "gate_residual_norm-no gate bias": changed("gate_bias_ptr", torch.zeros_like),
    "gate_residual_norm-bias for weight": swapped("weight_ptr", "bias_ptr"),
    "gate_residual_norm-wrong eps": changed("eps", lambda eps: 0.1),
    "gate_residual_modulate-frames mixed up": changed("num_levels", lambda count: 1),
    "qk_norm_rope-other weight": swapped("q_weight_ptr", "k_weight_ptr"),
    "qk_norm_rope-positions one late": changed("rope_ptr", lambda rope: rope.roll(1, 0)),
    "qk_norm_rope-rotated the other way": changed("rope_ptr", lambda rope: rope * torch.tensor([1.0, -1.0])),
    "rms_norm_rope-norm of every head": changed("D", lambda width: width // 3),
    "rms_norm_rope-positions one late": changed("rope_ptr", lambda rope: rope.roll(1, 0)),
    "rms_norm_rope-rotated the other way": changed("rope_ptr", lambda rope: rope * torch.tensor([1.0, -1.0])),
    "rms_norm_rope-not rotated": lambda arguments: {**arguments, "rope_ptr": None},
    "temporal_attention-last key missing": changed("num_keys", lambda keys: keys - 1),
    "temporal_attention-cache ignored": lambda arguments: {**arguments, "kv_cache_ptr": None},
    "temporal_attention-keys for values": changed("stride_cache_kv", lambda offset: 0),
    "temporal_attention-natural exponent": changed("scale", lambda scale: scale * math.log(2)),
    "euler_step-level off by one": changed("level_ptr", lambda x: (x + 1) % 31),
    "timestep_embedding-sine first": changed("t_ptr", lambda t: t + math.pi / 2),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, run = BY_NAME[bug.partition("-")[0]], KernelLaunch.run
    arguments = op.make_inputs(op.test_sizes[0], RandomInputs(torch.float32))
    plant = lambda launch: run(launch._replace(arguments=BUGS[bug](launch.arguments)))  # noqa: E731
    monkeypatch.setattr(KernelLaunch, "run", plant)
    assert not relative_error(op, arguments) <= op.tolerances[torch.bfloat16]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_program_that_never_runs_is_noticed(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, run = op.make_inputs(op.test_sizes[0], RandomInputs(torch.float32)), KernelLaunch.run
    fewer = lambda launch: run(launch._replace(grid=(launch.grid[0] - 1, *launch.grid[1:])))  # noqa: E731
    monkeypatch.setattr(KernelLaunch, "run", fewer)
    assert math.isnan(relative_error(op, arguments))
