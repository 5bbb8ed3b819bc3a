"""Triton kernel of `pavdm_kernels.modulate`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl

from pavdm_kernels.triton_kernels.tokens import layer_norm, load_modulation, load_token, program_tokens, store_token


@triton.jit
def modulate_kernel(
    x_ptr,
    out_ptr,
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
    """BLOCK_TOKENS tokens of one frame per program: shift and scale are loaded once, each token one iteration early."""
    frame, first, count = program_tokens(num_tokens, BLOCK_TOKENS)
    cols0, cols1 = tl.arange(0, BLOCK_D0), BLOCK_D0 + tl.arange(0, BLOCK_D1)
    next0, next1 = load_token(x_ptr, first, cols0, cols1, D)
    level = tl.load(level_ptr + frame % num_levels)
    scale0 = 1 + load_modulation(scale_ptr, scale_bias_ptr, level, stride_scale, cols0, D)
    scale1 = 1 + load_modulation(scale_ptr, scale_bias_ptr, level, stride_scale, cols1, D)
    shift0 = load_modulation(shift_ptr, shift_bias_ptr, level, stride_shift, cols0, D)
    shift1 = load_modulation(shift_ptr, shift_bias_ptr, level, stride_shift, cols1, D)
    for i in range(count):
        x0, x1 = next0.to(tl.float32), next1.to(tl.float32)
        next0, next1 = load_token(x_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        x0, x1 = layer_norm(x0, x1, cols0, cols1, eps, D)
        store_token(out_ptr, first + i, x0 * scale0 + shift0, x1 * scale1 + shift1, cols0, cols1, D)
