"""Triton kernel of `pavdm_kernels.qk_norm_rope`.

Like a token in `tokens`, a head's K channels are held in two blocks of columns, `cols0` and `cols1`.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl


@triton.jit
def load_cos_sin(rope_ptr, frame, cols, K: tl.constexpr):
    """Cosine and sine of the pairs in some columns; 1 and 0 without rotary embedding."""
    if rope_ptr is None:
        return 1.0, 0.0
    else:
        cos_sin = tl.load(rope_ptr + frame * K + cols, mask=cols < K, other=0.0)
        return tl.split(tl.reshape(cos_sin, [1, cols.shape[1] // 2, 2]))


@triton.jit
def rotate_pairs(x, cos, sin, rope_ptr):
    """`apply_rope` to some whole pairs."""
    if rope_ptr is None:
        return x
    else:
        even, odd = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))
        return tl.interleave(even * cos - odd * sin, even * sin + odd * cos)


@triton.jit
def norm_rope(
    x_ptr, out_ptr, weight_ptr, starts, rows, mask, cols0, cols1, cos0, sin0, cos1, sin1, rope_ptr, eps, K: tl.constexpr
):
    """Queries or keys: heads that start at `starts` of x, stored contiguously."""
    mask1 = mask & (cols1 < K)
    x0 = tl.load(x_ptr + starts + cols0, mask=mask & (cols0 < K), other=0.0).to(tl.float32)
    x1 = tl.load(x_ptr + starts + cols1, mask=mask1, other=0.0).to(tl.float32)
    squares = tl.sum(x0 * x0, 1) + tl.sum(x1 * x1, 1)
    rstd = tl.rsqrt(squares / K + eps)[:, None]
    x0 = x0 * rstd * tl.load(weight_ptr + cols0, mask=cols0 < K, other=0.0).to(tl.float32)
    x1 = x1 * rstd * tl.load(weight_ptr + cols1, mask=cols1 < K, other=0.0).to(tl.float32)
    y0, y1 = rotate_pairs(x0, cos0, sin0, rope_ptr), rotate_pairs(x1, cos1, sin1, rope_ptr)
    tl.store(out_ptr + rows * K + cols0, y0.to(out_ptr.dtype.element_ty), mask=mask & (cols0 < K))
    tl.store(out_ptr + rows * K + cols1, y1.to(out_ptr.dtype.element_ty), mask=mask1)


@triton.jit
def qk_norm_rope_kernel(
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    rope_ptr,
    q_out_ptr,
    k_out_ptr,
    num_frames,
    num_tokens,
    stride_b,
    stride_t,
    stride_s,
    eps,
    NUM_HEADS: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K0: tl.constexpr,
    BLOCK_K1: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
):
    """BLOCK_HEADS heads of one frame per program, of queries or of keys: both at once would take more registers."""
    num_blocks = tl.cdiv(num_tokens * NUM_HEADS, BLOCK_HEADS)
    frame = tl.program_id(0) // num_blocks
    first_head, rows = (tl.program_id(0) % num_blocks) * BLOCK_HEADS, tl.arange(0, BLOCK_HEADS)[:, None]
    head = first_head + rows
    mask = head < num_tokens * NUM_HEADS
    first_token = first_head // NUM_HEADS  # offsets from here on fit 32 bits
    origin = (frame // num_frames).to(tl.int64) * stride_b + (frame % num_frames).to(tl.int64) * stride_t
    origin += first_token.to(tl.int64) * stride_s
    starts = (head // NUM_HEADS - first_token) * stride_s + (head % NUM_HEADS) * K
    out_start = (frame.to(tl.int64) * num_tokens * NUM_HEADS + first_head) * K
    q_out_ptr, k_out_ptr = q_out_ptr + out_start, k_out_ptr + out_start
    cols0, cols1 = tl.arange(0, BLOCK_K0)[None, :], BLOCK_K0 + tl.arange(0, BLOCK_K1)[None, :]
    cos0, sin0 = load_cos_sin(rope_ptr, frame % num_frames, cols0, K)
    cos1, sin1 = load_cos_sin(rope_ptr, frame % num_frames, cols1, K)
    if tl.program_id(1) == 0:
        norm_rope(
            q_ptr + origin, q_out_ptr, q_weight_ptr, starts, rows, mask,
            cols0, cols1, cos0, sin0, cos1, sin1, rope_ptr, eps, K,
        )  # fmt: skip
    else:
        norm_rope(
            k_ptr + origin, k_out_ptr, k_weight_ptr, starts, rows, mask,
            cols0, cols1, cos0, sin0, cos1, sin1, rope_ptr, eps, K,
        )  # fmt: skip
