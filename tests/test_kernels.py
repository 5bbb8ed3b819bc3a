"""Every kernel against its reference in float64, run by Triton's interpreter on a CPU."""

from __future__ import annotations

import itertools
import math
import sys
from types import SimpleNamespace

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

from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_kernels.dispatch import DTYPES, use_kernel
from pavdm_kernels.launch import KernelLaunch, split_width
from pavdm_kernels.op import Op, RandomInputs
from pavdm_kernels.ops import OPS

BY_NAME = {op.name: op for op in OPS}
MAX_PROGRAMS = 40  # of a case: one takes the interpreter 8 to 40 ms
CASES = [
    pytest.param(op, case, id="-".join([op.name, *(f"{key}{size}" for key, size in case.items())]))
    for op in OPS
    for case in op.test_sizes
]


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_kernel_equals_its_reference(op: Op, case, dtype: torch.dtype) -> None:
    arguments = op.make_inputs(case, RandomInputs(dtype))
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
            table = model.modulation(torch.tensor([0.0, 1000.0]), torch.tensor(8.0))
            memory = model.prefill(z, levels[:1].expand(2), table, text)
            results.append(model(z, levels, table, text, cached=memory))
    assert {f"{op.name}_kernel" for op in OPS if op.name != "euler_step"} == set(launches)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)


def swapped(one: str, other: str):
    return lambda arguments: {**arguments, one: arguments[other], other: arguments[one]}


def changed(name: str, change):
    return lambda arguments: {**arguments, name: change(arguments[name])}


BUGS = {
    "modulate-shift for scale": swapped("shift_ptr", "scale_ptr"),
    "modulate-no bias": changed("shift_bias_ptr", torch.zeros_like),
    "modulate-level off by one": changed("level_ptr", lambda x: (x + 1) % 31),
    "modulate-wrong eps": changed("eps", lambda eps: 0.1),
    "gate_residual_modulate-no gate": lambda arguments: {**arguments, "gate_ptr": None, "gate_bias_ptr": None},
    "gate_residual_modulate-branch not added": changed("branch_ptr", torch.zeros_like),
    "gate_residual_modulate-frames mixed up": changed("num_levels", lambda count: 1),
    "qk_norm_rope-other weight": swapped("q_weight_ptr", "k_weight_ptr"),
    "qk_norm_rope-positions one late": changed("rope_ptr", lambda rope: rope.roll(1, 0)),
    "qk_norm_rope-rotated the other way": changed("rope_ptr", lambda rope: rope * torch.tensor([1.0, -1.0])),
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_are_as_wide_as_their_threads_load_at_once(dtype: torch.dtype) -> None:
    sizes = {"B": 1, "T": 1, "S": 1, "N": 1, "gated": 1, "rotated": 1, "C": 0}
    for width in (24, 72, 128, 192, 576, 1152, 1872, 2880, 4096):
        launch = prepared_on_meta("modulate", {**sizes, "D": width}, dtype)
        block0, block1 = launch.arguments["BLOCK_D0"], launch.arguments["BLOCK_D1"]
        for columns in (block0, *([block1] if block0 < width else [])):
            assert columns * dtype.itemsize >= 512 * launch.num_warps
    for width, frames, cached in itertools.product((16, 32, 40, 64, 72, 96, 128), (1, 5, 20, 35, 70), (0, 1, 5, 35)):
        launch = prepared_on_meta("temporal_attention", {**sizes, "T": frames, "K": width, "C": cached}, dtype)
        arguments = launch.arguments
        narrowest = arguments["BLOCK_K1"] or arguments["BLOCK_K0"]
        for name in ("BLOCK_M", "BLOCK_N", "BLOCK_CACHED"):
            assert arguments[name] * narrowest * dtype.itemsize >= 512 * launch.num_warps
        launch = prepared_on_meta("qk_norm_rope", {**sizes, "K": width}, dtype)
        arguments = launch.arguments
        narrowest = arguments["BLOCK_K1"] if arguments["BLOCK_K0"] < width else arguments["BLOCK_K0"]
        assert arguments["BLOCK_HEADS"] * narrowest * dtype.itemsize >= 512 * launch.num_warps


def prepared_on_meta(name: str, sizes: dict[str, int], dtype: torch.dtype) -> KernelLaunch:
    return prepared(BY_NAME[name], BY_NAME[name].make_inputs(sizes, RandomInputs(dtype, "meta")))


def test_kernels_read_a_joint_projection_without_copying_it() -> None:
    q, k, v = torch.empty(1, 4, 3, 3, 2, 16, device="meta").unbind(3)
    launch = prepared(BY_NAME["temporal_attention"], (q, k, v, None))
    assert [launch.arguments[f"{name}_ptr"] is x for name, x in (("q", q), ("k", k), ("v", v))] == [True] * 3
    launch = prepared(BY_NAME["qk_norm_rope"], (q, k, (torch.empty(16, device="meta"),) * 2, None))
    assert [launch.arguments[f"{name}_ptr"] is x for name, x in (("q", q), ("k", k))] == [True] * 2


def test_heads_beyond_32_bit_offsets_are_copied() -> None:
    shape, weights = (1, 1, 2, 1, 16), (torch.empty(16, device="meta"),) * 2
    for stride, expected in ((2**24, 2**24), (2**26, 16)):
        q, k = (torch.empty_strided(shape, (2 * stride, 2 * stride, stride, 16, 1), device="meta") for _ in range(2))
        arguments = prepared(BY_NAME["qk_norm_rope"], (q, k, weights, None)).arguments
        assert arguments["stride_s"] == arguments["q_ptr"].stride(2) == expected
        assert arguments["BLOCK_HEADS"] * expected + 16 < 2**31


def test_two_blocks_cover_any_width() -> None:
    for width in range(2, 2100):
        first, second = split_width(width)
        assert first & (first - 1) == second & (second - 1) == 0
        assert width <= first + (second if first < width else 0)
    assert [split_width(width) for width in (1152, 1872, 1024, 192)] == [(1024, 128), (1024, 1024), (1024, 1), (256, 1)]
