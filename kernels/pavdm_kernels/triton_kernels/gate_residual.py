"""Triton kernel of `pavdm_kernels.gate_residual`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl

from pavdm_kernels.triton_kernels.tokens import load_modulation, load_token, program_tokens, store_token


@triton.jit
def gate_residual_kernel(
    out_ptr,
    x_ptr,
    branch_ptr,
    level_ptr,
    gate_ptr,
    gate_bias_ptr,
    num_tokens,
    num_levels,
    stride_gate,
    D: tl.constexpr,
    BLOCK_D0: tl.constexpr,
    BLOCK_D1: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """BLOCK_TOKENS tokens of one frame per program: the gate is loaded once, each token one iteration early."""
    frame, first, count = program_tokens(num_tokens, BLOCK_TOKENS)
    cols0, cols1 = tl.arange(0, BLOCK_D0), BLOCK_D0 + tl.arange(0, BLOCK_D1)
    next_x0, next_x1 = load_token(x_ptr, first, cols0, cols1, D)
    next_branch0, next_branch1 = load_token(branch_ptr, first, cols0, cols1, D)
    level = tl.load(level_ptr + frame % num_levels)
    gate0 = load_modulation(gate_ptr, gate_bias_ptr, level, stride_gate, cols0, D)
    gate1 = load_modulation(gate_ptr, gate_bias_ptr, level, stride_gate, cols1, D)
    for i in range(count):
        x0 = next_x0.to(tl.float32) + gate0 * next_branch0.to(tl.float32)
        x1 = next_x1.to(tl.float32) + gate1 * next_branch1.to(tl.float32)
        next_x0, next_x1 = load_token(x_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        next_branch0, next_branch1 = load_token(branch_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        store_token(out_ptr, first + i, x0, x1, cols0, cols1, D)
