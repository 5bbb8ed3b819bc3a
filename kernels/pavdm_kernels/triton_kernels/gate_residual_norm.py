"""Triton kernel of `pavdm_kernels.gate_residual_norm`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl

from pavdm_kernels.triton_kernels.tokens import layer_norm, load_modulation, load_token, program_tokens, store_token


@triton.jit
def gate_residual_norm_kernel(
    weight_ptr,
    bias_ptr,
    sum_ptr,
    out_ptr,
    eps,
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
    """Like `gate_residual_modulate_kernel`, with the weight and bias of the norm in place of scale and shift."""
    frame, first, count = program_tokens(num_tokens, BLOCK_TOKENS)
    cols0, cols1 = tl.arange(0, BLOCK_D0), BLOCK_D0 + tl.arange(0, BLOCK_D1)
    next_x0, next_x1 = load_token(x_ptr, first, cols0, cols1, D)
    next_branch0, next_branch1 = load_token(branch_ptr, first, cols0, cols1, D)
    level = tl.load(level_ptr + frame % num_levels)
    gate0 = load_modulation(gate_ptr, gate_bias_ptr, level, stride_gate, cols0, D)
    gate1 = load_modulation(gate_ptr, gate_bias_ptr, level, stride_gate, cols1, D)
    weight0, weight1 = load_token(weight_ptr, 0, cols0, cols1, D)
    bias0, bias1 = load_token(bias_ptr, 0, cols0, cols1, D)
    for i in range(count):
        x0 = next_x0.to(tl.float32) + gate0 * next_branch0.to(tl.float32)
        x1 = next_x1.to(tl.float32) + gate1 * next_branch1.to(tl.float32)
        next_x0, next_x1 = load_token(x_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        next_branch0, next_branch1 = load_token(branch_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        store_token(sum_ptr, first + i, x0, x1, cols0, cols1, D)
        x0, x1 = layer_norm(x0, x1, cols0, cols1, eps, D)
        y0 = x0 * weight0.to(tl.float32) + bias0.to(tl.float32)
        y1 = x1 * weight1.to(tl.float32) + bias1.to(tl.float32)
        store_token(out_ptr, first + i, y0, y1, cols0, cols1, D)
