# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""coRNN on a GPU: a block of sequences goes through all steps with its states in registers, weights in shared memory.

Each program has BLOCK sequences and all units, so sums over units need no other program, and runs repeat bit for bit.
Spec sheet cornn.md 1.2, 3.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.elementary import TO_BASE_2, reciprocal, sigmoid_of_base_2
from pendula.ops.gpu.product_kernels import BFLOAT16, LOW, SPLIT, operand, product, scale_of, weight

SIZES = ["steps", "batch", "units"]


@triton.jit
def per_unit(values, n, units):
    return tl.load(values + n, mask=n < units, other=0.0)[None, :]


@triton.jit
def drive_at(drive, x, V_n, b_n, t, stride, place, b, batch, inside, INPUTS: tl.constexpr):
    """The drive of step t (BLOCK, M): read, or made from INPUTS features."""
    if INPUTS == 0:
        found = tl.load(drive + stride * t + place, mask=inside, other=0.0)
    else:
        found = b_n
        for i in tl.static_range(INPUTS):
            u = tl.load(x + (batch.to(tl.int64) * t + b) * INPUTS + i, mask=b < batch, other=0.0)
            found += V_n[i] * u[:, None]
    return found


@triton.jit
def moved_by(y, z, a, h, gamma, epsilon, IMPLICIT: tl.constexpr, FAST: tl.constexpr):
    """tanh a and the velocity behind a step."""
    tanh = 1.0 - 2.0 * sigmoid_of_base_2(a * TO_BASE_2, FAST)
    if IMPLICIT:
        moved = (z + h * (tanh - gamma * y)) * reciprocal(1.0 + epsilon * h, FAST)
    else:
        moved = z + h * (tanh - gamma * y - epsilon * z)
    return tanh, moved


@triton.jit
def pulled_back(moved, g_z, tanh, h, epsilon, IMPLICIT: tl.constexpr, FAST: tl.constexpr):
    """What z's change, the force, the drive and the velocity before a step get; `moved`: what y behind it gets."""
    pull = g_z + h * moved
    if IMPLICIT:
        pull *= reciprocal(1.0 + epsilon * h, FAST)
        kept = pull
    else:
        kept = pull - h * epsilon * pull
    force = h * pull
    return pull, force, force * (1.0 - tanh * tanh), kept


@triton.jit(do_not_specialize=SIZES)
def forward(
    x,
    V,
    b,
    drive,
    weights,
    dt,
    gamma,
    epsilon,
    tau,
    lengths,
    y0,
    z0,
    outputs,
    tanhs,
    velocities,
    y_last,
    z_last,
    steps,
    batch,
    units,
    IMPLICIT: tl.constexpr,
    PRODUCTS: tl.constexpr,
    INPUTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """With `tanhs` these and the velocities are kept for the backward pass. `weights` has W and W_z."""
    n = tl.arange(0, M)
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (s[:, None] < batch) & (n[None, :] < units)
    place = s[:, None] * units + n[None, :]
    stride = (batch * units).to(tl.int64)
    dt, gamma, epsilon = per_unit(dt, n, units), per_unit(gamma, n, units), per_unit(epsilon, n, units)
    V_n = ()
    for i in tl.static_range(INPUTS):
        V_n += (tl.load(V + n * INPUTS + i, mask=n < units, other=0.0)[None, :],)
    b_n = per_unit(b, n, units) if b is not None else tl.zeros((1, M), tl.float32)
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    W_high, W_low = weight(weights, 0, n[None, :], n[:, None], M, PRODUCTS, FAST)
    Z_high, Z_low = weight(weights, 1, n[None, :], n[:, None], M, PRODUCTS, FAST)
    y = tl.load(y0 + place, mask=inside, other=0.0)
    z = tl.load(z0 + place, mask=inside, other=0.0)
    for t in range(steps):
        # added behind the products, which take longer than it does to come
        now = drive_at(drive, x, V_n, b_n, t, stride, place, s, batch, inside, INPUTS)
        now_tau = 0.0
        if tau is not None:
            now_tau = tl.load(tau + s, mask=s < batch, other=0.0)
            tau += batch
        y_high, y_low = operand(y, PRODUCTS, FAST)
        z_high, z_low = operand(z, PRODUCTS, FAST)
        # the sums start at zero: what the drive adds in float32 is not in the way of the products
        a, a_low = tl.zeros((BLOCK, M), tl.float32), tl.zeros((BLOCK, M), tl.float32)
        a, a_low = product(y_high, y_low, W_high, W_low, a, a_low, PRODUCTS)
        a, a_low = product(z_high, z_low, Z_high, Z_low, a, a_low, PRODUCTS)
        if PRODUCTS == SPLIT:
            a += a_low * (1.0 / LOW)
        h = dt * now_tau[:, None] if tau is not None else dt
        tanh, moved = moved_by(y, z, a + now, h, gamma, epsilon, IMPLICIT, FAST)
        shown = y + h * moved
        if lengths is not None:
            runs = t < left
            y, z = tl.where(runs, shown, y), tl.where(runs, moved, z)
            shown = tl.where(runs, shown, 0.0)
        else:
            y, z = shown, moved
        tl.store(outputs + stride * t + place, shown, mask=inside)
        if tanhs is not None:
            tl.store(tanhs + stride * t + place, tanh, mask=inside)
            tl.store(velocities + stride * t + place, z, mask=inside)
    tl.store(y_last + place, y, mask=inside)
    tl.store(z_last + place, z, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def backward(
    weights,
    dt,
    gamma,
    epsilon,
    tau,
    lengths,
    tanhs,
    by_outputs,
    by_y,
    by_z,
    by_drive,
    by_moved,
    pulls,
    steps,
    batch,
    units,
    IMPLICIT: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """by_y and by_z, of the final state, become those of the initial one; the states themselves are not needed.

    `by_moved` and `pulls` take, if they are wanted, what each step's y and (undamped) change of z get, from which
    follow the gradients by dt, gamma, epsilon and tau.
    """
    n = tl.arange(0, M)
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (s[:, None] < batch) & (n[None, :] < units)
    place = s[:, None] * units + n[None, :]
    stride = (batch * units).to(tl.int64)
    dt, gamma, epsilon = per_unit(dt, n, units), per_unit(gamma, n, units), per_unit(epsilon, n, units)
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    W_high, W_low = weight(weights, 0, n[:, None], n[None, :], M, PRODUCTS, FAST)
    Z_high, Z_low = weight(weights, 1, n[:, None], n[None, :], M, PRODUCTS, FAST)
    g_y = tl.load(by_y + place, mask=inside, other=0.0)
    g_z = tl.load(by_z + place, mask=inside, other=0.0)
    last = stride * (steps - 1) + place
    ahead = tl.load(tanhs + last, mask=inside, other=0.0)
    ahead_g = tl.load(by_outputs + last, mask=inside, other=0.0) if by_outputs is not None else 0.0
    ahead_tau = (
        tl.load(tau + batch.to(tl.int64) * (steps - 1) + s, mask=s < batch, other=0.0) if tau is not None else 0.0
    )
    for back in range(steps):
        t = steps - 1 - back
        tanh, now_g, now_tau = ahead, ahead_g, ahead_tau
        there, before = tl.where(t > 0, inside, False), stride * (t - 1) + place
        ahead = tl.load(tanhs + before, mask=there, other=0.0)
        if by_outputs is not None:
            ahead_g = tl.load(by_outputs + before, mask=there, other=0.0)
        if tau is not None:
            rows = tl.where(t > 0, s < batch, False)
            ahead_tau = tl.load(tau + batch.to(tl.int64) * (t - 1) + s, mask=rows, other=0.0)
        h = dt * now_tau[:, None] if tau is not None else dt
        moved = g_y + now_g if by_outputs is not None else g_y
        pull, force, p, kept = pulled_back(moved, g_z, tanh, h, epsilon, IMPLICIT, FAST)
        if lengths is not None:
            runs = t < left
            p, moved, pull = tl.where(runs, p, 0.0), tl.where(runs, moved, g_y), tl.where(runs, pull, 0.0)
            force, kept = tl.where(runs, force, 0.0), tl.where(runs, kept, g_z)
        tl.store(by_drive + stride * t + place, p, mask=inside)
        if pulls is not None:
            tl.store(by_moved + stride * t + place, moved, mask=inside)
            tl.store(pulls + stride * t + place, pull, mask=inside)
        up, down = 1.0, 1.0
        if PRODUCTS != BFLOAT16:
            # gradients are of any size, float16 is not; a power of two changes no digit
            up, down = scale_of(p)
        p_high, p_low = operand(p * up, PRODUCTS, FAST)
        a_y, a_y_low = tl.zeros((BLOCK, M), tl.float32), tl.zeros((BLOCK, M), tl.float32)
        a_z, a_z_low = tl.zeros((BLOCK, M), tl.float32), tl.zeros((BLOCK, M), tl.float32)
        a_y, a_y_low = product(p_high, p_low, W_high, W_low, a_y, a_y_low, PRODUCTS)
        if PRODUCTS == SPLIT:
            a_y += a_y_low * (1.0 / LOW)
        g_y = moved - force * gamma + a_y * down
        a_z, a_z_low = product(p_high, p_low, Z_high, Z_low, a_z, a_z_low, PRODUCTS)
        if PRODUCTS == SPLIT:
            a_z += a_z_low * (1.0 / LOW)
        g_z = kept + a_z * down
    tl.store(by_y + place, g_y, mask=inside)
    tl.store(by_z + place, g_z, mask=inside)
