"""Makes Triton's interpreter treat bfloat16 as a GPU does: it keeps such numbers as bit patterns.

Left alone it truncates where a GPU rounds to nearest even, and does arithmetic on the patterns as if on integers.
"""

from __future__ import annotations

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle


def is_bfloat16(*handles):
    return any(handle.dtype.scalar == tl.bfloat16 for handle in handles)


def widened(handle):
    """The same numbers in float32, exactly."""
    pattern = handle.data.astype(np.uint32) << 16
    return Handle(pattern.view(np.float32).reshape(handle.data.shape), tl.float32)


def rounded(handle):
    """Float32 to bfloat16, to nearest, ties to even; a NaN stays one."""
    values = np.ascontiguousarray(handle.data, dtype=np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    upper = np.where(np.isnan(values), 0x7FC0, upper).astype(np.uint16)
    return Handle(upper.reshape(np.shape(handle.data)), tl.bfloat16)


def install(patch):
    """Replaces the interpreter's casts and guards its arithmetic, through a `MonkeyPatch`."""
    cast, dot, adapt = Builder.cast_impl, Builder.create_dot, interpreter._patch_lang_tensor

    def cast_impl(self, source, target):
        if source.dtype.scalar == target.scalar or not (is_bfloat16(source) or target.scalar == tl.bfloat16):
            return cast(self, source, target)
        wide = widened(source) if is_bfloat16(source) else cast(self, source, tl.float32)
        return rounded(wide) if target.scalar == tl.bfloat16 else cast(self, wide, target)

    def create_fp_to_fp(self, source, target, rounding_mode):
        return cast_impl(self, source, target)

    def create_dot(self, a, b, *rest):
        return dot(self, *(widened(x) if is_bfloat16(x) else x for x in (a, b)), *rest)

    def _patch_lang_tensor(tensor, scope):
        adapt(tensor, scope)
        # Triton 3.6 leaves an array where `range` wants a number, which numpy has stopped to accept.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    patch.setattr(interpreter, "_patch_lang_tensor", _patch_lang_tensor)
    patch.setattr(Builder, "cast_impl", cast_impl)
    patch.setattr(Builder, "create_fp_to_fp", create_fp_to_fp)
    patch.setattr(Builder, "create_dot", create_dot)
    for name, operands in (("unary_op", 1), ("binary_op", 2), ("ternary_op", 3)):
        patch.setattr(Builder, name, refusing(getattr(Builder, name), operands))


def refusing(plain, operands):
    """An operation that raises where a kernel forgot to widen; choosing between numbers is no arithmetic."""

    def checked(self, *arguments):
        if is_bfloat16(*arguments[:operands]) and arguments[operands] is not np.where:
            raise TypeError("arithmetic on bfloat16: widen it with .to(tl.float32) first")
        return plain(self, *arguments)

    return checked
