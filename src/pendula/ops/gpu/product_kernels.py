# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""Products of a state with weights on the tensor cores: operands of 16 bits, sums of 32; SPLIT has float32's precision.

SPLIT writes a number as hi + lo / 2048, two float16 numbers, and leaves out lo times lo: 22 bits of each operand count,
where float32 has 24. The others round the operands, to 11 bits (HALF) or 8 (BFLOAT16).
"""

import triton
import triton.language as tl

SPLIT, HALF, BFLOAT16 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
LOW = tl.constexpr(2048.0)


@triton.jit
def weight(packed, index: tl.constexpr, row, column, M: tl.constexpr, PRODUCTS: tl.constexpr, FAST: tl.constexpr):
    """A matrix (M, M) of `packed`, hi and lo, as an operand; without SPLIT lo is hi."""
    place = row * M + column
    high = tl.load(packed + index * M * M + place)
    low = high
    if PRODUCTS == SPLIT:
        low = tl.load(packed + (2 + index) * M * M + place)
    if PRODUCTS == BFLOAT16 and not FAST:
        # Triton's interpreter multiplies the bits of bfloat16 numbers
        high = high.to(tl.float32)
    return high, low


@triton.jit
def operand(v, PRODUCTS: tl.constexpr, FAST: tl.constexpr):
    """A state as an operand, hi and lo."""
    if PRODUCTS == BFLOAT16:
        high = v.to(tl.bfloat16)
        if not FAST:
            high = high.to(tl.float32)
        low = high
    else:
        high = v.to(tl.float16)
        low = high
        if PRODUCTS == SPLIT:
            low = ((v - high.to(tl.float32)) * LOW).to(tl.float16)
    return high, low


@triton.jit
def product(high, low, W_high, W_low, so_far, so_far_low, PRODUCTS: tl.constexpr):
    """(BLOCK, M) times (M, M) added to two sums, of which the second counts 1 / LOW."""
    so_far = tl.dot(high, W_high, so_far)
    if PRODUCTS == SPLIT:
        so_far_low = tl.dot(low, W_high, so_far_low)
        so_far_low = tl.dot(high, W_low, so_far_low)
    return so_far, so_far_low


@triton.jit
def scale_of(v):
    """A power of two for each row (BLOCK, 1) that brings its largest number to between 1 and 2, and the inverse."""
    exponent = tl.max(tl.abs(v), 1).to(tl.int32, bitcast=True) & 0x7F800000
    up = (0x7F000000 - exponent).to(tl.float32, bitcast=True)
    return up[:, None], exponent.to(tl.float32, bitcast=True)[:, None]
