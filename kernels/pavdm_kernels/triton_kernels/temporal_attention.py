"""Triton kernel of `pavdm_kernels.temporal_attention`.

Like a token in `tokens`, a head's K channels are held in two blocks of columns, `cols0` and `cols1`; the second is
skipped where BLOCK_K1 is 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl


@triton.jit
def load_frames(x_ptr, first, count, stride_t, cols, K: tl.constexpr, BLOCK_T: tl.constexpr):
    """One head of one token in BLOCK_T frames, zeros beyond the last: (BLOCK_T, columns)."""
    frame = (first + tl.arange(0, BLOCK_T))[:, None]
    return tl.load(x_ptr + frame.to(tl.int64) * stride_t + cols, mask=(frame < count) & (cols < K), other=0.0)


@triton.jit
def attend(
    k_ptr,
    v_ptr,
    count,
    stride_kt,
    stride_vt,
    q0,
    q1,
    m_i,
    l_i,
    acc0,
    acc1,
    scale,
    cols0,
    cols1,
    K: tl.constexpr,
    BLOCK_K1: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Online softmax over `count` more keys, BLOCK_N at a time.

    m_i: largest score so far; l_i: sum of weights; acc: weighted values.
    """
    for first in range(0, count, BLOCK_N):
        k0 = load_frames(k_ptr, first, count, stride_kt, cols0, K, BLOCK_N)
        scores = tl.dot(q0, tl.trans(k0), input_precision="ieee")
        if BLOCK_K1:
            k1 = load_frames(k_ptr, first, count, stride_kt, cols1, K, BLOCK_N)
            scores += tl.dot(q1, tl.trans(k1), input_precision="ieee")
        mask = (first + tl.arange(0, BLOCK_N))[None, :] < count
        scores = tl.where(mask, scores, float("-inf"))
        m_new = tl.maximum(m_i, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - m_new[:, None])
        alpha = tl.exp2(m_i - m_new)
        l_i = l_i * alpha + tl.sum(p, 1)
        v0 = load_frames(v_ptr, first, count, stride_vt, cols0, K, BLOCK_N)
        acc0 = acc0 * alpha[:, None] + tl.dot(p.to(v0.dtype), v0, input_precision="ieee")
        if BLOCK_K1:
            v1 = load_frames(v_ptr, first, count, stride_vt, cols1, K, BLOCK_N)
            acc1 = acc1 * alpha[:, None] + tl.dot(p.to(v1.dtype), v1, input_precision="ieee")
        m_i = m_new
    return m_i, l_i, acc0, acc1


@triton.jit
def temporal_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    kv_cache_ptr,
    out_ptr,
    num_queries,
    num_keys,
    num_cached,
    num_tokens,
    num_heads,
    scale,
    stride_qb,
    stride_qt,
    stride_qs,
    stride_kb,
    stride_kt,
    stride_ks,
    stride_vb,
    stride_vt,
    stride_vs,
    stride_cache_kv,
    K: tl.constexpr,
    BLOCK_K0: tl.constexpr,
    BLOCK_K1: tl.constexpr,
    PADDED_K1: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_CACHED: tl.constexpr,
):
    """BLOCK_M query frames of one head of one token per program; the cached keys come before the others."""
    pid = tl.program_id(0).to(tl.int64)
    n, s, b = pid % num_heads, pid // num_heads % num_tokens, pid // (num_heads * num_tokens)
    first = tl.program_id(1) * BLOCK_M
    cols0, cols1 = tl.arange(0, BLOCK_K0)[None, :], BLOCK_K0 + tl.arange(0, PADDED_K1)[None, :]
    q_ptr += b * stride_qb + s * stride_qs + n * K
    k_ptr += b * stride_kb + s * stride_ks + n * K
    v_ptr += b * stride_vb + s * stride_vs + n * K
    q0 = load_frames(q_ptr, first, num_queries, stride_qt, cols0, K, BLOCK_M)
    q1 = load_frames(q_ptr, first, num_queries, stride_qt, cols1, K, BLOCK_M)
    m_i, l_i = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    acc0, acc1 = tl.zeros([BLOCK_M, BLOCK_K0], tl.float32), tl.zeros([BLOCK_M, PADDED_K1], tl.float32)
    stride_t = num_tokens * num_heads * K  # of a contiguous tensor
    if kv_cache_ptr is not None:
        kv_cache_ptr += b * num_cached * stride_t + (s * num_heads + n) * K
        m_i, l_i, acc0, acc1 = attend(
            kv_cache_ptr, kv_cache_ptr + stride_cache_kv, num_cached, stride_t, stride_t,
            q0, q1, m_i, l_i, acc0, acc1, scale, cols0, cols1, K, BLOCK_K1, BLOCK_CACHED,
        )  # fmt: skip
    m_i, l_i, acc0, acc1 = attend(
        k_ptr, v_ptr, num_keys, stride_kt, stride_vt,
        q0, q1, m_i, l_i, acc0, acc1, scale, cols0, cols1, K, BLOCK_K1, BLOCK_N,
    )  # fmt: skip
    frame = (first + tl.arange(0, BLOCK_M))[:, None]
    mask = frame < num_queries
    out_ptr += b * num_queries * stride_t + frame.to(tl.int64) * stride_t + (s * num_heads + n) * K
    tl.store(out_ptr + cols0, (acc0 / l_i[:, None]).to(out_ptr.dtype.element_ty), mask=mask & (cols0 < K))
    if BLOCK_K1:
        tl.store(out_ptr + cols1, (acc1 / l_i[:, None]).to(out_ptr.dtype.element_ty), mask=mask & (cols1 < K))
