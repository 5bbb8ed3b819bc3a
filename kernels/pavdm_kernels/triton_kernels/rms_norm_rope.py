"""Triton kernel of `pavdm_kernels.rms_norm_rope`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl

from pavdm_kernels.triton_kernels.tokens import load_token, program_tokens, store_token


@triton.jit
def rotate_heads(x, rope_ptr, token, cols, K: tl.constexpr):
    """Rotate the pairs of some columns of a token by its angles, which repeat every K columns."""
    if rope_ptr is None:
        return x
    else:
        cos_sin = tl.load(rope_ptr + token * K + cols % K)
        cos, sin = tl.split(tl.reshape(cos_sin, [cols.shape[0] // 2, 2]))
        even, odd = tl.split(tl.reshape(x, [x.shape[0] // 2, 2]))
        return tl.interleave(even * cos - odd * sin, even * sin + odd * cos)


@triton.jit
def rms_norm_rope_kernel(
    x_ptr,
    weight_ptr,
    rope_ptr,
    out_ptr,
    num_tokens,
    eps,
    D: tl.constexpr,
    K: tl.constexpr,
    BLOCK_D0: tl.constexpr,
    BLOCK_D1: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """BLOCK_TOKENS tokens of one sample per program: the weight is loaded once, each token one iteration early."""
    sample, first, count = program_tokens(num_tokens, BLOCK_TOKENS)
    start = first - sample.to(tl.int64) * num_tokens  # within the sample
    cols0, cols1 = tl.arange(0, BLOCK_D0), BLOCK_D0 + tl.arange(0, BLOCK_D1)
    next0, next1 = load_token(x_ptr, first, cols0, cols1, D)
    weight0, weight1 = load_token(weight_ptr, 0, cols0, cols1, D)
    for i in range(count):
        x0, x1 = next0.to(tl.float32), next1.to(tl.float32)
        next0, next1 = load_token(x_ptr, first + tl.minimum(i + 1, count - 1), cols0, cols1, D)
        rstd = tl.rsqrt((tl.sum(x0 * x0, 0) + tl.sum(x1 * x1, 0)) / D + eps)
        y0 = rotate_heads(x0 * rstd * weight0.to(tl.float32), rope_ptr, start + i, cols0, K)
        y1 = rotate_heads(x1 * rstd * weight1.to(tl.float32), rope_ptr, start + i, cols1, K)
        store_token(out_ptr, first + i, y0, y1, cols0, cols1, D)
