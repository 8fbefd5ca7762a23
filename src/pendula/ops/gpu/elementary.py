# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""Elementary functions as a few machine instructions; FAST chooses those, else what Triton's interpreter can run."""

import triton
import triton.language as tl

TO_BASE_2 = tl.constexpr(2.8853900817779268)
"""2 / ln 2: exp(2 a) = 2^(TO_BASE_2 a)."""


@triton.jit
def reciprocal(a, FAST: tl.constexpr):
    """1 / a, in error by at most a unit of the last digit; a is no denormal number."""
    if FAST:
        found = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [a], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        found = 1.0 / a
    return found


@triton.jit
def sigmoid_of_base_2(a, FAST: tl.constexpr):
    """1 / (2^a + 1); with a = TO_BASE_2 b, tanh b = 1 - 2 of it and tanh' b = 4 of it times 1 minus it.

    Denormal numbers are taken for zero, which spares the slow paths; the error is 1e-7 of 1.
    """
    if FAST:
        power = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [a], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        power = tl.exp2(a)
    return reciprocal(power + 1.0, FAST)
