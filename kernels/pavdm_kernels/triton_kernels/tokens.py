"""Device functions shared by the kernels that normalize and modulate tokens.

A token's D channels are held in two blocks of BLOCK_D0 and BLOCK_D1 columns (see `split_width`); `cols0` and `cols1`
are their column numbers.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl


@triton.jit
def program_tokens(num_tokens, BLOCK_TOKENS: tl.constexpr):
    """A program's frame, its first token counted over all frames, and the number of its tokens."""
    num_blocks = tl.cdiv(num_tokens, BLOCK_TOKENS)
    frame = tl.program_id(0) // num_blocks
    first = (tl.program_id(0) % num_blocks) * BLOCK_TOKENS
    return frame, frame.to(tl.int64) * num_tokens + first, tl.minimum(BLOCK_TOKENS, num_tokens - first)


@triton.jit
def load_token(x_ptr, token, cols0, cols1, D: tl.constexpr):
    """One token as it is stored; zeros beyond column D."""
    x0 = tl.load(x_ptr + token * D + cols0, mask=cols0 < D, other=0.0)
    return x0, tl.load(x_ptr + token * D + cols1, mask=cols1 < D, other=0.0)


@triton.jit
def store_token(out_ptr, token, y0, y1, cols0, cols1, D: tl.constexpr):
    """Round and store one token."""
    tl.store(out_ptr + token * D + cols0, y0.to(out_ptr.dtype.element_ty), mask=cols0 < D)
    tl.store(out_ptr + token * D + cols1, y1.to(out_ptr.dtype.element_ty), mask=cols1 < D)


@triton.jit
def load_modulation(rows_ptr, bias_ptr, level, stride_row, cols, D: tl.constexpr):
    """`PerLevel.gather` for one level, in float32."""
    row = tl.load(rows_ptr + level * stride_row + cols, mask=cols < D, other=0.0).to(tl.float32)
    return row + tl.load(bias_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)


@triton.jit
def layer_norm(x0, x1, cols0, cols1, eps, D: tl.constexpr):
    """LayerNorm of one token without affine: mean first, then the variance of the centered values, all in registers."""
    mean = (tl.sum(x0, 0) + tl.sum(x1, 0)) / D
    x0 = tl.where(cols0 < D, x0 - mean, 0.0)
    x1 = tl.where(cols1 < D, x1 - mean, 0.0)
    variance = (tl.sum(x0 * x0, 0) + tl.sum(x1 * x1, 0)) / D
    rstd = tl.rsqrt(variance + eps)
    return x0 * rstd, x1 * rstd
