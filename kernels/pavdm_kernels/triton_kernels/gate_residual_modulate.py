"""Triton kernel of `pavdm_kernels.gate_residual_modulate`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl

from pavdm_kernels.triton_kernels.tokens import layer_norm, load_modulation, load_token, program_tokens, store_token


@triton.jit
def load_gate(gate_ptr, gate_bias_ptr, level, stride_gate, cols, D: tl.constexpr):
    """The gate of a level, or ones if there is no gate."""
    if gate_ptr is None:
        return tl.full(cols.shape, 1.0, tl.float32)
    else:
        return load_modulation(gate_ptr, gate_bias_ptr, level, stride_gate, cols, D)


@triton.jit
def gate_residual_modulate_kernel(
    x_ptr,
    branch_ptr,
    gate_ptr,
    gate_bias_ptr,
    sum_ptr,
    out_ptr,
    stride_gate,
    level_ptr,
    shift_ptr,
    shift_bias_ptr,
    scale_ptr,
    scale_bias_ptr,
    num_tokens,
    num_levels,
    stride_shift,
    stride_scale,
    eps,
    D: tl.constexpr,
    BLOCK_D0: tl.constexpr,
    BLOCK_D1: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Like `modulate_kernel`, of the residual sum, which is normalized before it is rounded."""
    frame, first, count = program_tokens(num_tokens, BLOCK_TOKENS)
    cols0, cols1 = tl.arange(0, BLOCK_D0), BLOCK_D0 + tl.arange(0, BLOCK_D1)
    next_x0, next_x1 = load_token(x_ptr, first, cols0, cols1, D)
    next_branch0, next_branch1 = load_token(branch_ptr, first, cols0, cols1, D)
    level = tl.load(level_ptr + frame % num_levels)
    gate0 = load_gate(gate_ptr, gate_bias_ptr, level, stride_gate, cols0, D)
    gate1 = load_gate(gate_ptr, gate_bias_ptr, level, stride_gate, cols1, D)
    scale0 = 1 + load_modulation(scale_ptr, scale_bias_ptr, level, stride_scale, cols0, D)
    scale1 = 1 + load_modulation(scale_ptr, scale_bias_ptr, level, stride_scale, cols1, D)
    shift0 = load_modulation(shift_ptr, shift_bias_ptr, level, stride_shift, cols0, D)
    shift1 = load_modulation(shift_ptr, shift_bias_ptr, level, stride_shift, cols1, D)
    for i in range(count):
        x0 = next_x0.to(tl.float32) + gate0 * next_branch0.to(tl.float32)
        x1 = next_x1.to(tl.float32) + gate1 * next_branch1.to(tl.float32)
        next_x0, next_x1 = load_token(x_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        next_branch0, next_branch1 = load_token(branch_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        store_token(sum_ptr, first + i, x0, x1, cols0, cols1, D)
        x0, x1 = layer_norm(x0, x1, cols0, cols1, eps, D)
        store_token(out_ptr, first + i, x0 * scale0 + shift0, x1 * scale1 + shift1, cols0, cols1, D)
