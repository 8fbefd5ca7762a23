# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""coRNN on a GPU where the weights don't fit the shared memory: each step streams them from the GPU's caches.

Each program has BLOCK sequences and all units, COLUMNS of them at a time; its states are in memory, which its caches
have, and go into the products as operands through `scratch`. What a step writes there, later ones read behind a
barrier. No program waits for another, and runs repeat bit for bit. Spec sheet cornn.md 1.2, 3.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.cornn_kernels import SIZES, drive_at, moved_by, per_unit, pulled_back
from pendula.ops.gpu.product_kernels import BFLOAT16, hand_over, scale_of, streamed


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
    scratch,
    steps,
    batch,
    units,
    IMPLICIT: tl.constexpr,
    PRODUCTS: tl.constexpr,
    INPUTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """y_last and z_last have the state of the moment. `weights` has W and W_z transposed.

    `scratch` has for each program y and z as operands twice: one pair is read while the other is written.
    """
    SIZE: tl.constexpr = BLOCK * M
    LOW_AT: tl.constexpr = 4 * SIZE
    each, row = tl.arange(0, COLUMNS), tl.arange(0, BLOCK)[:, None]
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    scratch += tl.program_id(0).to(tl.int64) * (2 * LOW_AT)
    stride = (batch * units).to(tl.int64)
    reach = (units + TILE - 1) // TILE * TILE
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    for c in range(0, units, COLUMNS):
        n = c + each
        inside = (s[:, None] < batch) & (n[None, :] < units)
        place, held = s[:, None] * units + n[None, :], row * M + n[None, :]
        y, z = tl.load(y0 + place, mask=inside, other=0.0), tl.load(z0 + place, mask=inside, other=0.0)
        tl.store(y_last + place, y, mask=inside)
        tl.store(z_last + place, z, mask=inside)
        hand_over(y, scratch, held, LOW_AT, PRODUCTS)
        hand_over(z, scratch + SIZE, held, LOW_AT, PRODUCTS)
    tl.debug_barrier()
    for t in range(steps):
        old, new = scratch + t % 2 * (2 * SIZE), scratch + (t + 1) % 2 * (2 * SIZE)
        now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0) if tau is not None else 0.0
        for c in range(0, units, COLUMNS):
            n = c + each
            inside = (s[:, None] < batch) & (n[None, :] < units)
            place, held = s[:, None] * units + n[None, :], row * M + n[None, :]
            # these come while the products are made
            dt_n, gamma_n, epsilon_n = per_unit(dt, n, units), per_unit(gamma, n, units), per_unit(epsilon, n, units)
            V_n = ()
            for i in tl.static_range(INPUTS):
                V_n += (tl.load(V + n * INPUTS + i, mask=n < units, other=0.0)[None, :],)
            b_n = per_unit(b, n, units) if b is not None else tl.zeros((1, COLUMNS), tl.float32)
            now = drive_at(drive, x, V_n, b_n, t, stride, place, s, batch, inside, INPUTS)
            a_y, a_z = streamed(
                old, old + SIZE, LOW_AT, weights + c, reach, M, BLOCK, COLUMNS, TILE, STAGES, PRODUCTS, FAST
            )
            y = tl.load(y_last + place, mask=inside, other=0.0)
            z = tl.load(z_last + place, mask=inside, other=0.0)
            h = dt_n * now_tau[:, None] if tau is not None else dt_n
            tanh, moved = moved_by(y, z, a_y + a_z + now, h, gamma_n, epsilon_n, IMPLICIT, FAST)
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
            hand_over(y, new, held, LOW_AT, PRODUCTS)
            hand_over(z, new + SIZE, held, LOW_AT, PRODUCTS)
        tl.debug_barrier()


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
    scratch,
    steps,
    batch,
    units,
    IMPLICIT: tl.constexpr,
    PRODUCTS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """by_y and by_z, of the final state, become those of the initial one; see `cornn_kernels.backward`."""
    LOW_AT: tl.constexpr = BLOCK * M
    each, row = tl.arange(0, COLUMNS), tl.arange(0, BLOCK)[:, None]
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    scratch += tl.program_id(0).to(tl.int64) * (2 * LOW_AT)
    stride = (batch * units).to(tl.int64)
    reach = (units + TILE - 1) // TILE * TILE
    left = tl.load(lengths + s, mask=s < batch, other=0).to(tl.int32)[:, None] if lengths is not None else 0
    for back in range(steps):
        t = steps - 1 - back
        now_tau = tl.load(tau + batch.to(tl.int64) * t + s, mask=s < batch, other=0.0) if tau is not None else 0.0
        largest = tl.zeros((BLOCK, 1), tl.float32)
        for c in range(0, units, COLUMNS):
            n = c + each
            inside = (s[:, None] < batch) & (n[None, :] < units)
            place = s[:, None] * units + n[None, :]
            dt_n, gamma_n, epsilon_n = per_unit(dt, n, units), per_unit(gamma, n, units), per_unit(epsilon, n, units)
            tanh = tl.load(tanhs + stride * t + place, mask=inside, other=0.0)
            g_y = tl.load(by_y + place, mask=inside, other=0.0)
            g_z = tl.load(by_z + place, mask=inside, other=0.0)
            moved = g_y
            if by_outputs is not None:
                moved += tl.load(by_outputs + stride * t + place, mask=inside, other=0.0)
            h = dt_n * now_tau[:, None] if tau is not None else dt_n
            pull, force, p, kept = pulled_back(moved, g_z, tanh, h, epsilon_n, IMPLICIT, FAST)
            if lengths is not None:
                runs = t < left
                p, moved, pull = tl.where(runs, p, 0.0), tl.where(runs, moved, g_y), tl.where(runs, pull, 0.0)
                force, kept = tl.where(runs, force, 0.0), tl.where(runs, kept, g_z)
            tl.store(by_drive + stride * t + place, p, mask=inside)
            if pulls is not None:
                tl.store(by_moved + stride * t + place, moved, mask=inside)
                tl.store(pulls + stride * t + place, pull, mask=inside)
            # all but what comes through the weights
            tl.store(by_y + place, moved - force * gamma_n, mask=inside)
            tl.store(by_z + place, kept, mask=inside)
            largest = tl.maximum(largest, tl.max(tl.abs(p), 1)[:, None])
        up, down = 1.0, 1.0
        if PRODUCTS != BFLOAT16:
            # gradients are of any size, float16 is not; a power of two changes no digit
            up, down = scale_of(largest)
        tl.debug_barrier()
        for c in range(0, units, COLUMNS):
            n = c + each
            inside = (s[:, None] < batch) & (n[None, :] < units)
            p = tl.load(by_drive + stride * t + s[:, None] * units + n[None, :], mask=inside, other=0.0)
            hand_over(p * up, scratch, row * M + n[None, :], LOW_AT, PRODUCTS)
        tl.debug_barrier()
        for c in range(0, units, COLUMNS):
            n = c + each
            inside = (s[:, None] < batch) & (n[None, :] < units)
            place = s[:, None] * units + n[None, :]
            g_y = tl.load(by_y + place, mask=inside, other=0.0)
            g_z = tl.load(by_z + place, mask=inside, other=0.0)
            a_y, a_z = streamed(
                scratch, scratch, LOW_AT, weights + c, reach, M, BLOCK, COLUMNS, TILE, STAGES, PRODUCTS, FAST
            )
            tl.store(by_y + place, g_y + a_y * down, mask=inside)
            tl.store(by_z + place, g_z + a_z * down, mask=inside)
        tl.debug_barrier()
