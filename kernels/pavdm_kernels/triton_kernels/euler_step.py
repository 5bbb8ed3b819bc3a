"""Triton kernel of `pavdm_kernels.euler_step`."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
import triton
import triton.language as tl


@triton.jit
def euler_step_kernel(
    z_ptr, velocity_ptr, level_ptr, step_size_ptr, out_ptr, num_levels, N: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Each program updates BLOCK_N of the N elements of one frame."""
    num_blocks = tl.cdiv(N, BLOCK_N)
    frame = tl.program_id(0) // num_blocks
    offs = (tl.program_id(0) % num_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask, start = offs < N, frame.to(tl.int64) * N
    step_size = tl.load(step_size_ptr + tl.load(level_ptr + frame % num_levels)).to(tl.float32)
    z = tl.load(z_ptr + start + offs, mask=mask).to(tl.float32)
    velocity = tl.load(velocity_ptr + start + offs, mask=mask).to(tl.float32)
    tl.store(out_ptr + start + offs, (z + step_size * velocity).to(out_ptr.dtype.element_ty), mask=mask)
