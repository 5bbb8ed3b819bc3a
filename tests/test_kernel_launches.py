"""How kernels are launched: block widths, strides, copies."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_kernels import BY_NAME, prepared

from pavdm_kernels.dispatch import DTYPES
from pavdm_kernels.launch import KernelLaunch, split_width
from pavdm_kernels.op import RandomInputs


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
