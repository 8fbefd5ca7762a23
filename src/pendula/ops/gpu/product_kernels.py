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
def weight(
    packed,
    index: tl.constexpr,
    row,
    column,
    M: tl.constexpr,
    PRODUCTS: tl.constexpr,
    FAST: tl.constexpr,
    COUNT: tl.constexpr = 2,
):
    """A matrix (M, M) of the COUNT in `packed`, hi and lo, as an operand; without SPLIT lo is hi."""
    place = row * M + column
    high = tl.load(packed + index * M * M + place)
    low = high
    if PRODUCTS == SPLIT:
        low = tl.load(packed + (COUNT + index) * M * M + place)
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
def hand_over(v, scratch, place, low_at, PRODUCTS: tl.constexpr):
    """A state as an operand to memory: hi, and (SPLIT) lo `low_at` numbers behind it. Behind a barrier all read it."""
    if PRODUCTS == BFLOAT16:
        tl.store(scratch + place, v.to(tl.bfloat16))
    else:
        high = v.to(tl.float16)
        tl.store(scratch + place, high)
        if PRODUCTS == SPLIT:
            tl.store(scratch + low_at + place, ((v - high.to(tl.float32)) * LOW).to(tl.float16))


@triton.jit
def tile(pointers, low_at, PRODUCTS: tl.constexpr, FAST: tl.constexpr):
    """Part of an operand or a weight, hi and lo; without SPLIT lo is hi."""
    high = tl.load(pointers)
    low = high
    if PRODUCTS == SPLIT:
        low = tl.load(pointers + low_at)
    if PRODUCTS == BFLOAT16 and not FAST:
        # Triton's interpreter multiplies the bits of bfloat16 numbers
        high = high.to(tl.float32)
    return high, low


@triton.jit
def streamed(
    first,
    second,
    low_at,
    weights,
    reach,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    PRODUCTS: tl.constexpr,
    FAST: tl.constexpr,
):
    """Two operands (BLOCK, M) times COLUMNS of two weights (M, M), in memory: TILE rows at a time, `reach` in all."""
    row, n, each = tl.arange(0, BLOCK), tl.arange(0, COLUMNS), tl.arange(0, TILE)
    operand_at, weight_at = row[:, None] * M + each[None, :], each[:, None] * M + n[None, :]
    a, a_low = tl.zeros((BLOCK, COLUMNS), tl.float32), tl.zeros((BLOCK, COLUMNS), tl.float32)
    b, b_low = tl.zeros((BLOCK, COLUMNS), tl.float32), tl.zeros((BLOCK, COLUMNS), tl.float32)
    for k in tl.range(0, reach, TILE, num_stages=STAGES):
        high, low = tile(first + k + operand_at, low_at, PRODUCTS, FAST)
        W_high, W_low = tile(weights + k * M + weight_at, 2 * M * M, PRODUCTS, FAST)
        a, a_low = product(high, low, W_high, W_low, a, a_low, PRODUCTS)
        high, low = tile(second + k + operand_at, low_at, PRODUCTS, FAST)
        W_high, W_low = tile(weights + (M + k) * M + weight_at, 2 * M * M, PRODUCTS, FAST)
        b, b_low = product(high, low, W_high, W_low, b, b_low, PRODUCTS)
    if PRODUCTS == SPLIT:
        a += a_low * (1.0 / LOW)
        b += b_low * (1.0 / LOW)
    return a, b


@triton.jit
def scale_of(v):
    """A power of two for each row (BLOCK, 1) that brings its largest number to between 1 and 2, and the inverse."""
    exponent = tl.max(tl.abs(v), 1).to(tl.int32, bitcast=True) & 0x7F800000
    up = (0x7F000000 - exponent).to(tl.float32, bitcast=True)
    return up[:, None], exponent.to(tl.float32, bitcast=True)[:, None]
