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
    W,
    weights,
    k: tl.constexpr,
    row,
    column,
    HELD: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    PRODUCTS: tl.constexpr,
    FAST: tl.constexpr,
):
    """An operand (BLOCK, M) times weight k; the sums start at zero: nothing else is in the way of the products."""
    W_high, W_low = W
    if PRODUCTS == SPLIT and k >= HELD:
        _, W_low = weight(weights, k, row, column, M, PRODUCTS, FAST, 4)
    found, found_low = tl.zeros((BLOCK, M), tl.float32), tl.zeros((BLOCK, M), tl.float32)
    found, found_low = product(high, low, W_high, W_low, found, found_low, PRODUCTS)
    if PRODUCTS == SPLIT:
        found += found_low * (1.0 / LOW)
    return found


@triton.jit
def sigmoid(a, FAST: tl.constexpr):
    """Right to some digits of itself, not of 1: a small gate is a long memory."""
    return sigmoid_of_base_2(a * (-0.5 * TO_BASE_2), FAST)


@triton.jit
def tanh(a, FAST: tl.constexpr):
    return 1.0 - 2.0 * sigmoid_of_base_2(a * TO_BASE_2, FAST)


@triton.jit
def blocks(pointers, first: tl.constexpr, units, inside):
    """Blocks `first` and `first` + 2 of a row of four: a gate and what it lets in."""
    there = pointers + first * units
    return tl.load(there, mask=inside, other=0.0), tl.load(there + 2 * units, mask=inside, other=0.0)


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
    HELD: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """With `gates` these and the memories z are kept for the backward pass."""
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
    y = tl.load(y0 + place, mask=inside, other=0.0)
    z = tl.load(z0 + place, mask=inside, other=0.0)
    d_1, d_z = blocks(drive + wide, 0, units, inside)
    # what comes from memory at each step is not to be piled up in shared memory
    for t in tl.range(0, steps, num_stages=1):
        here, now_tau = 4 * stride * t + wide, 1.0
        if tau is not None:
            now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0)[:, None]
        # each half of a step is under way while the products of the other half are
        d_2, d_y = blocks(drive + here, 1, units, inside)
        h = dt * now_tau if tau is not None else dt
        high, low = operand(y, PRODUCTS, FAST)
        a_1 = times(high, low, W_1, weights, 0, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        s_1 = sigmoid(a_1 + d_1, FAST)
        a_z = times(high, low, W_z, weights, 2, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        g = tanh(a_z + d_z, FAST)
        a_2 = times(high, low, W_2, weights, 1, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        s_2 = sigmoid(a_2 + d_2, FAST)
        if gates is not None:
            # at once: with the other stores at the end of the step there are too few registers
            tl.store(gates + here, s_1, mask=inside)
            tl.store(gates + here + units, s_2, mask=inside)
            tl.store(gates + here + 2 * units, g, mask=inside)
        moved = z + h * s_1 * (g - z)
        z = tl.where(t < left, moved, z) if lengths is not None else moved
        d_1, d_z = blocks(drive + here + 4 * stride, 0, units, tl.where(t + 1 < steps, inside, False))
        if gates is not None:
            tl.store(memories + stride * t + place, z, mask=inside)
        z_high, z_low = operand(z, PRODUCTS, FAST)
        a_y = times(z_high, z_low, W_y, weights, 3, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        q = tanh(a_y + d_y, FAST)
        shown = y + h * s_2 * (q - y)
        if lengths is not None:
            y = tl.where(t < left, shown, y)
            shown = tl.where(t < left, shown, 0.0)
        else:
            y = shown
        tl.store(outputs + stride * t + place, shown, mask=inside)
        if gates is not None:
            tl.store(gates + here + 3 * units, q, mask=inside)
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
    by_step,
    steps,
    batch,
    units,
    HELD: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """by_y and by_z, of the final state, become those of the initial one. `by_step` takes, if wanted, what the length
    of each step gets, from which follow the gradients by dt and tau."""
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
    g_y = tl.load(by_y + place, mask=inside, other=0.0)
    g_z = tl.load(by_z + place, mask=inside, other=0.0)
    last = stride * (steps - 1)
    s_2, q = blocks(gates + 4 * last + wide, 1, units, inside)
    y = tl.load(before(outputs, y0, steps - 1, stride) + place, mask=inside, other=0.0)
    shown = tl.load(by_outputs + last + place, mask=inside, other=0.0) if by_outputs is not None else 0.0
    for back in tl.range(0, steps, num_stages=1):
        t = steps - 1 - back
        here, now_tau = 4 * stride * t + wide, 1.0
        if tau is not None:
            now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0)[:, None]
        h = dt * now_tau if tau is not None else dt
        # each half of a step is under way while the products of the other half are
        s_1, g = blocks(gates + here, 0, units, inside)
        z = tl.load(before(memories, z0, t, stride) + place, mask=inside, other=0.0)
        p_2, p_y, rest, by_h = pull(g_y + shown, y, s_2, q, h)
        if lengths is not None:
            runs = t < left
            p_2, p_y = tl.where(runs, p_2, 0.0), tl.where(runs, p_y, 0.0)
            rest, by_h = tl.where(runs, rest, g_y), tl.where(runs, by_h, 0.0)
        tl.store(by_drive + here + units, p_2, mask=inside)
        tl.store(by_drive + here + 3 * units, p_y, mask=inside)
        up, down = 1.0, 1.0
        if PRODUCTS != BFLOAT16:
            # gradients are of any size, float16 is not; a power of two changes no digit
            up, down = scale_of(p_y)
        high, low = operand(p_y * up, PRODUCTS, FAST)
        g_z += times(high, low, W_y, weights, 3, row, column, HELD, M, BLOCK, PRODUCTS, FAST) * down
        p_1, p_z, left_z, by_h_z = pull(g_z, z, s_1, g, h)
        if lengths is not None:
            runs = t < left
            p_1, p_z = tl.where(runs, p_1, 0.0), tl.where(runs, p_z, 0.0)
            left_z, by_h_z = tl.where(runs, left_z, g_z), tl.where(runs, by_h_z, 0.0)
        g_z = left_z
        tl.store(by_drive + here, p_1, mask=inside)
        tl.store(by_drive + here + 2 * units, p_z, mask=inside)
        if by_step is not None:
            tl.store(by_step + stride * t + place, by_h + by_h_z, mask=inside)
        there = tl.where(t > 0, inside, False)
        s_2, q = blocks(gates + here - 4 * stride, 1, units, there)
        y = tl.load(before(outputs, y0, t - 1, stride) + place, mask=there, other=0.0)
        if by_outputs is not None:
            shown = tl.load(by_outputs + stride * (t - 1) + place, mask=there, other=0.0)
        if PRODUCTS != BFLOAT16:
            # their products are added up, so one scale serves all
            up, down = scale_of(tl.maximum(tl.maximum(tl.abs(p_1), tl.abs(p_2)), tl.abs(p_z)))
        high, low = operand(p_1 * up, PRODUCTS, FAST)
        total = times(high, low, W_1, weights, 0, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        high, low = operand(p_2 * up, PRODUCTS, FAST)
        total += times(high, low, W_2, weights, 1, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        high, low = operand(p_z * up, PRODUCTS, FAST)
        total += times(high, low, W_z, weights, 2, row, column, HELD, M, BLOCK, PRODUCTS, FAST)
        g_y = rest + total * down
    tl.store(by_y + place, g_y, mask=inside)
    tl.store(by_z + place, g_z, mask=inside)


@triton.jit
def before(rows, start, t, stride):
    """Where the state before step t is: in row t - 1 of all states, or the initial one."""
    return tl.where(t > 0, rows + stride * (t - 1), start)
