# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""LEM on a GPU: a block of sequences goes through all steps with both states in registers, weights in shared memory.

Each program has BLOCK sequences and all units, so sums over units need no other program, and runs repeat bit for bit.
`weights` has W_1, W_2, W_z and W_y; `drive` and `gates` have blocks of N in that order: two gates, then what they let
in, the goals of z and y. Of the low halves of the weights (SPLIT) the first HELD stay in shared memory, which at 128
units has no room for all four; the others come anew at each step. Spec sheet baselines.md 1.8.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.cornn_kernels import per_unit
from pendula.ops.gpu.elementary import TO_BASE_2, sigmoid_of_base_2
from pendula.ops.gpu.product_kernels import BFLOAT16, LOW, SPLIT, operand, product, scale_of, weight

# not `units`: whether 16 divides it decides how many numbers a lane moves at once
SIZES = ["steps", "batch"]


@triton.jit
def times(
    high,
    low,
    so_far,
    so_far_low,
    W,
    weights,
    k: tl.constexpr,
    row,
    column,
    HELD: tl.constexpr,
    M: tl.constexpr,
    PRODUCTS: tl.constexpr,
    FAST: tl.constexpr,
):
    """An operand (BLOCK, M) times weight k, added to two sums, of which the second counts 1 / LOW."""
    W_high, W_low = W
    if PRODUCTS == SPLIT and k >= HELD:
        _, W_low = weight(weights, k, row, column, M, PRODUCTS, FAST, 4)
    return product(high, low, W_high, W_low, so_far, so_far_low, PRODUCTS)


@triton.jit
def summed(so_far, so_far_low, PRODUCTS: tl.constexpr):
    return so_far + so_far_low * (1.0 / LOW) if PRODUCTS == SPLIT else so_far


@triton.jit
def sigmoid(a, FAST: tl.constexpr):
    """Right to some digits of itself, not of 1: a small gate is a long memory."""
    return sigmoid_of_base_2(a * (-0.5 * TO_BASE_2), FAST)


@triton.jit
def tanh(a, FAST: tl.constexpr):
    return 1.0 - 2.0 * sigmoid_of_base_2(a * TO_BASE_2, FAST)


@triton.jit
def blocks(row, first: tl.constexpr, wide, units, inside):
    """Blocks `first` and `first` + 2 of a row of four: a gate and what it lets in."""
    gate, goal = row + first * units + wide, row + (first + 2) * units + wide
    return tl.load(gate, mask=inside, other=0.0), tl.load(goal, mask=inside, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def forward(
    drive,
    weights,
    dt,
    tau,
    lengths,
    y0,
    z0,
    outputs,
    gates,
    memories,
    y_last,
    z_last,
    steps,
    batch,
    units,
    KEEP: tl.constexpr,
    HELD: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """With KEEP `gates` and `memories` (the z) have a row per step, for the backward pass; else one row in all.

    Stores between the products keep the compiler from working at all of them at once: it has not the registers.
    """
    n = tl.arange(0, M)
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (s[:, None] < batch) & (n[None, :] < units)
    place, wide = s[:, None] * units + n[None, :], s[:, None] * (4 * units) + n[None, :]
    stride = (batch * units).to(tl.int64)
    dt = per_unit(dt, n, units)
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    row, column = n[None, :], n[:, None]
    W_1 = weight(weights, 0, row, column, M, PRODUCTS, FAST, 4)
    W_2 = weight(weights, 1, row, column, M, PRODUCTS, FAST, 4)
    W_z = weight(weights, 2, row, column, M, PRODUCTS, FAST, 4)
    W_y = weight(weights, 3, row, column, M, PRODUCTS, FAST, 4)
    # the sums of products start at zero: nothing else is in the way of them
    zero = tl.zeros((BLOCK, M), tl.float32)
    y = tl.load(y0 + place, mask=inside, other=0.0)
    z = tl.load(z0 + place, mask=inside, other=0.0)
    d_1, d_z = blocks(drive, 0, wide, units, inside)
    # what comes from memory at each step is not to be piled up in shared memory
    for t in tl.range(0, steps, num_stages=1):
        here, kept, now_tau = 4 * stride * t, stride * t if KEEP else stride * 0, 1.0
        if tau is not None:
            now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0)[:, None]
        if lengths is not None:
            # a step of no length leaves states as they are
            now_tau = tl.where(t < left, now_tau, 0.0)
        h = dt * now_tau if tau is not None or lengths is not None else dt
        high, low = operand(y, PRODUCTS, FAST)
        sums = times(high, low, zero, zero, W_1, weights, 0, row, column, HELD, M, PRODUCTS, FAST)
        a_1 = summed(*sums, PRODUCTS)
        s_1 = sigmoid(a_1 + d_1, FAST)
        sums = times(high, low, zero, zero, W_z, weights, 2, row, column, HELD, M, PRODUCTS, FAST)
        a_z = summed(*sums, PRODUCTS)
        g = tanh(a_z + d_z, FAST)
        # each half of a step is under way while the products of the other half are
        d_2, d_y = blocks(drive + here, 1, wide, units, inside)
        sums = times(high, low, zero, zero, W_2, weights, 1, row, column, HELD, M, PRODUCTS, FAST)
        a_2 = summed(*sums, PRODUCTS)
        s_2 = sigmoid(a_2 + d_2, FAST)
        tl.store(gates + 4 * kept + wide, s_1, mask=inside)
        tl.store(gates + 4 * kept + units + wide, s_2, mask=inside)
        tl.store(gates + 4 * kept + 2 * units + wide, g, mask=inside)
        z += h * s_1 * (g - z)
        d_1, d_z = blocks(drive + here + 4 * stride, 0, wide, units, tl.where(t + 1 < steps, inside, False))
        tl.store(memories + kept + place, z, mask=inside)
        z_high, z_low = operand(z, PRODUCTS, FAST)
        sums = times(z_high, z_low, zero, zero, W_y, weights, 3, row, column, HELD, M, PRODUCTS, FAST)
        a_y = summed(*sums, PRODUCTS)
        q = tanh(a_y + d_y, FAST)
        y += h * s_2 * (q - y)
        shown = tl.where(t < left, y, 0.0) if lengths is not None else y
        tl.store(outputs + stride * t + place, shown, mask=inside)
        tl.store(gates + 4 * kept + 3 * units + wide, q, mask=inside)
    tl.store(y_last + place, y, mask=inside)
    tl.store(z_last + place, z, mask=inside)


@triton.jit
def pull(by_new, before, s, goal, h):
    """Of a state that h s moved to its goal: gradients by the gate's and the goal's input, by the state, and by h."""
    by_step = s * (goal - before) * by_new
    kept = h * s * by_new
    return h * (1.0 - s) * by_step, kept * (1.0 - goal * goal), by_new - kept, by_step


@triton.jit(do_not_specialize=SIZES)
def backward(
    weights,
    dt,
    tau,
    lengths,
    y0,
    z0,
    outputs,
    gates,
    memories,
    by_outputs,
    by_y,
    by_z,
    by_drive,
    by_steps,
    by_y0,
    by_z0,
    steps,
    batch,
    units,
    HELD: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """From by_y and by_z, of the final state, to by_y0 and by_z0. `by_steps` (T, 2, B, N) takes, if wanted, what the
    length of each half of each step gets, from which follow the gradients by dt and tau."""
    n = tl.arange(0, M)
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (s[:, None] < batch) & (n[None, :] < units)
    place, wide = s[:, None] * units + n[None, :], s[:, None] * (4 * units) + n[None, :]
    stride = (batch * units).to(tl.int64)
    dt = per_unit(dt, n, units)
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    row, column = n[:, None], n[None, :]
    W_1 = weight(weights, 0, row, column, M, PRODUCTS, FAST, 4)
    W_2 = weight(weights, 1, row, column, M, PRODUCTS, FAST, 4)
    W_z = weight(weights, 2, row, column, M, PRODUCTS, FAST, 4)
    W_y = weight(weights, 3, row, column, M, PRODUCTS, FAST, 4)
    # the sums of products start at zero: nothing else is in the way of them
    zero = tl.zeros((BLOCK, M), tl.float32)
    g_y = tl.load(by_y + place, mask=inside, other=0.0)
    g_z = tl.load(by_z + place, mask=inside, other=0.0)
    last = stride * (steps - 1)
    s_2, q = blocks(gates + 4 * last, 1, wide, units, inside)
    y = tl.load(before(outputs, y0, steps - 1, stride) + place, mask=inside, other=0.0)
    shown = tl.load(by_outputs + last + place, mask=inside, other=0.0) if by_outputs is not None else 0.0
    for back in tl.range(0, steps, num_stages=1):
        t = steps - 1 - back
        here, now_tau = 4 * stride * t, 1.0
        if tau is not None:
            now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0)[:, None]
        if lengths is not None:
            # a step of no length leaves states and gradients as they are
            now_tau = tl.where(t < left, now_tau, 0.0)
            if by_outputs is not None:
                shown = tl.where(t < left, shown, 0.0)
        h = dt * now_tau if tau is not None or lengths is not None else dt
        # each half of a step is under way while the products of the other half are
        s_1, g = blocks(gates + here, 0, wide, units, inside)
        z = tl.load(before(memories, z0, t, stride) + place, mask=inside, other=0.0)
        p_2, p_y, rest, by_h = pull(g_y + shown, y, s_2, q, h)
        if by_steps is not None:
            # apart: their sum would take too many registers
            by_h = tl.where(t < left, by_h, 0.0) if lengths is not None else by_h
            tl.store(by_steps + stride * (2 * t) + place, by_h, mask=inside)
        tl.store(by_drive + here + units + wide, p_2, mask=inside)
        tl.store(by_drive + here + 3 * units + wide, p_y, mask=inside)
        up, down = 1.0, 1.0
        if PRODUCTS != BFLOAT16:
            # gradients are of any size, float16 is not; a power of two changes no digit
            up, down = scale_of(p_y)
        high, low = operand(p_y * up, PRODUCTS, FAST)
        sums = times(high, low, zero, zero, W_y, weights, 3, row, column, HELD, M, PRODUCTS, FAST)
        g_z += summed(*sums, PRODUCTS) * down
        p_1, p_z, left_z, by_h_z = pull(g_z, z, s_1, g, h)
        g_z = left_z
        tl.store(by_drive + here + wide, p_1, mask=inside)
        tl.store(by_drive + here + 2 * units + wide, p_z, mask=inside)
        if by_steps is not None:
            by_h = tl.where(t < left, by_h_z, 0.0) if lengths is not None else by_h_z
            tl.store(by_steps + stride * (2 * t + 1) + place, by_h, mask=inside)
        there = tl.where(t > 0, inside, False)
        if PRODUCTS != BFLOAT16:
            # their products are added up, so one scale serves all
            up, down = scale_of(tl.maximum(tl.maximum(tl.abs(p_1), tl.abs(p_2)), tl.abs(p_z)))
        high, low = operand(p_1 * up, PRODUCTS, FAST)
        sums = times(high, low, zero, zero, W_1, weights, 0, row, column, HELD, M, PRODUCTS, FAST)
        high, low = operand(p_2 * up, PRODUCTS, FAST)
        sums = times(high, low, *sums, W_2, weights, 1, row, column, HELD, M, PRODUCTS, FAST)
        s_2, q = blocks(gates + here - 4 * stride, 1, wide, units, there)
        y = tl.load(before(outputs, y0, t - 1, stride) + place, mask=there, other=0.0)
        if by_outputs is not None:
            shown = tl.load(by_outputs + stride * (t - 1) + place, mask=there, other=0.0)
        high, low = operand(p_z * up, PRODUCTS, FAST)
        sums = times(high, low, *sums, W_z, weights, 2, row, column, HELD, M, PRODUCTS, FAST)
        g_y = rest + summed(*sums, PRODUCTS) * down
    tl.store(by_y0 + place, g_y, mask=inside)
    tl.store(by_z0 + place, g_z, mask=inside)


@triton.jit
def before(rows, start, t, stride):
    """Where the state before step t is: in row t - 1 of all states, or the initial one."""
    return tl.where(t > 0, rows + stride * (t - 1), start)
