# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""UnICORNN at many times at once: Newton's method in a window that moves along, each oscillator for itself.

A program is one warp and has one oscillator of one sequence. Of a window each lane has EACH consecutive steps, which
it goes through one after another; only its summary, an affine map of (y, z), is scanned over the lanes. Its matrix has
determinant 1, so the state that a lane enters with follows from the one it leaves with. Iterates lie in memory, since
the window moves by whole lanes: what a lane wrote another one reads, behind a barrier. Design: gpu-kernels.md 2.5.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.elementary import TO_BASE_2, sigmoid_of_base_2

SIZES = ["steps", "units"]
SLOW, PATIENCE = tl.constexpr(16), tl.constexpr(8)
"""See `pendula.nets.newton`."""
CLOSE = tl.constexpr(3e-4)
"""By how much w y may still move in the iteration that is its last: what is left is the square of it."""
ROUNDING = tl.constexpr(0.75 * 1.1920929e-07)
"""Half a unit of the last digit, and half of that: `pendula.nets.newton` takes the largest of some draws instead."""
HUGE = tl.constexpr(1e30)


@triton.jit
def composed(a, b, c, d, e, f, A, B, C, D, E, F):
    """The map (y, z) -> (y + a y + b z + e, z + c y + d z + f), then that of the capitals.

    What it adds is what is kept: of a short step, a number next to 1 would lose most of it.
    """
    return (
        a + A + (A * a + B * c),
        b + B + (A * b + B * d),
        c + C + (C * a + D * c),
        d + D + (C * b + D * d),
        e + E + (A * e + B * f),
        f + F + (C * e + D * f),
    )


@triton.jit
def entered(a, b, c, d, e, f, y, z):
    """The states that lanes enter and leave with, from their maps and the state that the first one enters with."""
    A, B, C, D, E, F = tl.associative_scan((a, b, c, d, e, f), 0, composed)
    last_y, last_z = y + (A * y + B * z + E), z + (C * y + D * z + F)
    u, v = last_y - e, last_z - f
    return u + (d * u - b * v), v + (a * v - c * u), last_y, last_z


@triton.jit
def of_lane(values, lane, which):
    return tl.sum(tl.where(lane == which, values, 0.0), 0)


@triton.jit
def step_at(h, tau, i, inside):
    """The length of step i; behind a sequence's end 0, which leaves a state as it is."""
    found = h
    if tau is not None:
        found = h * tl.load(tau + i, mask=inside, other=0.0)
    return tl.where(inside, found, 0.0)


@triton.jit
def finite(values):
    return tl.where(tl.abs(values) < HUGE, values, 0.0)


@triton.jit(do_not_specialize=SIZES)
def solve(
    drive,
    w,
    h,
    alpha,
    tau,
    lengths,
    state_y,
    state_z,
    ys,
    zs,
    counts,
    steps,
    units,
    LANES: tl.constexpr,
    EACH: tl.constexpr,
    FAST: tl.constexpr,
):
    """state_y and state_z, of the start, become the final state; drive, ys and zs are (B, N, T), tau (B, T).

    `counts` takes how many steps were solved, and in how many iterations. Where these are too many it is given up.
    """
    chain = tl.program_id(0)
    n, row = chain % units, (chain // units).to(tl.int64)
    lane = tl.arange(0, LANES)
    none = tl.zeros((LANES,), tl.float32)
    here = chain.to(tl.int64) * steps
    drive += here
    ys += here
    zs += here
    w, h, alpha = tl.load(w + n), tl.load(h + n), tl.load(alpha + n)
    y, z = tl.load(state_y + chain), tl.load(state_z + chain)
    tau_at = tau + row * steps if tau is not None else None
    end = tl.load(lengths + row).to(tl.int32) if lengths is not None else steps + 0
    # steps that are solved, those that have an iterate, and the last iterate
    done, guessed, last = end * 0, end * 0, y
    iterations, before, runs = end * 0, end * 0, end > 0
    while runs:
        a, b, c, d, e, f = none, none, none, none, none, none
        hs, pulls, pushes, guesses = (), (), (), ()
        for u in tl.static_range(EACH):
            i = done + lane * EACH + u
            inside = i < end
            known = (i > done) & (i <= guessed)
            guess = tl.where(known, tl.load(ys + i - 1, mask=known, other=0.0), tl.where(i > done, last, y))
            step = step_at(h, tau_at, i, inside)
            r = sigmoid_of_base_2((w * guess + tl.load(drive + i, mask=inside, other=0.0)) * TO_BASE_2, FAST)
            slope = 4.0 * w * r * (1.0 - r)
            # the step, linear about the guess: z - pull y - push, then y + step z
            pull, push = step * (slope + alpha), step * (1.0 - 2.0 * r - slope * guess)
            c, d, f = c - (pull * a + pull), d - pull * b, f - pull * e - push
            a, b, e = a + step * c, b + (step * d + step), e + step * f
            hs += (step,)
            pulls += (pull,)
            pushes += (push,)
            guesses += (guess,)
        tl.debug_barrier()
        now_y, now_z, _, _ = entered(a, b, c, d, e, f, y, z)
        close = lane >= 0
        for u in tl.static_range(EACH):
            i = done + lane * EACH + u
            # large numbers are rounded by more
            close = close & (tl.abs(w * (now_y - guesses[u])) <= CLOSE * (1.0 + tl.abs(w * now_y) / 16.0))
            now_z = now_z - pulls[u] * now_y - pushes[u]
            now_y = now_y + hs[u] * now_z
            tl.store(ys + i, finite(now_y), mask=i < end)
            tl.store(zs + i, finite(now_z), mask=i < end)
        taken = tl.min(tl.where(close, LANES, lane), 0)
        y = tl.where(taken > 0, of_lane(now_y, lane, taken - 1), y)
        z = tl.where(taken > 0, of_lane(now_z, lane, taken - 1), z)
        last = of_lane(finite(now_y), lane, LANES - 1)
        guessed = tl.minimum(done + LANES * EACH, end)
        done = tl.minimum(done + taken * EACH, end)
        iterations += 1
        judged = iterations % PATIENCE == 0
        runs = (done < end) & ((done - before >= SLOW * PATIENCE) | (iterations % PATIENCE != 0))
        before = tl.where(judged, done, before)
        tl.debug_barrier()
    tl.store(state_y + chain, y)
    tl.store(state_z + chain, z)
    tl.store(counts + 2 * chain, done)
    # Triton 3.6 needs what a loop was asked for behind it too; it is false there
    tl.store(counts + 2 * chain + 1, iterations + runs.to(tl.int32))


@triton.jit
def drawn(i, SALT: tl.constexpr):
    """A number between -1 and 1, as good as drawn."""
    bits = (i + SALT) * 1540483477
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * 1274126177
    # the sign is no part of what is shifted in
    return (bits ^ ((bits >> 13) & 0x7FFFF)).to(tl.float32) * (0.5**31)


@triton.jit(do_not_specialize=SIZES)
def judge(
    drive,
    w,
    h,
    alpha,
    tau,
    lengths,
    start_y,
    start_z,
    ys,
    zs,
    differences,
    steps,
    units,
    LANES: tl.constexpr,
    EACH: tl.constexpr,
    FAST: tl.constexpr,
):
    """What each step is off by, and the rounding of each number and step, grown along the trajectory.

    As a share of the largest values, which `NewtonReport.difference` speaks of; infinite where it is no number.
    """
    chain = tl.program_id(0)
    n, row = chain % units, (chain // units).to(tl.int64)
    lane = tl.arange(0, LANES)
    none = tl.zeros((LANES,), tl.float32)
    here = chain.to(tl.int64) * steps
    drive += here
    ys += here
    zs += here
    w, h, alpha = tl.load(w + n), tl.load(h + n), tl.load(alpha + n)
    y0, z0 = tl.load(start_y + chain), tl.load(start_z + chain)
    tau_at = tau + row * steps if tau is not None else None
    end = tl.load(lengths + row).to(tl.int32) if lengths is not None else steps + 0
    off_y, off_z = y0 * 0.0, z0 * 0.0
    most_y, most_z, large_y, large_z = none, none, none, none
    for first in range(0, end, LANES * EACH):
        a, b, c, d, e, f = none, none, none, none, none, none
        hs, pulls, by_y, by_z = (), (), (), ()
        for u in tl.static_range(EACH):
            i = first + lane * EACH + u
            inside = i < end
            known = inside & (i > 0)
            y = tl.where(known, tl.load(ys + i - 1, mask=known, other=0.0), y0)
            z = tl.where(known, tl.load(zs + i - 1, mask=known, other=0.0), z0)
            new_y, new_z = tl.load(ys + i, mask=inside, other=0.0), tl.load(zs + i, mask=inside, other=0.0)
            step = step_at(h, tau_at, i, inside)
            r = sigmoid_of_base_2((w * y + tl.load(drive + i, mask=inside, other=0.0)) * TO_BASE_2, FAST)
            pull = step * (4.0 * w * r * (1.0 - r) + alpha)
            z_stepped = z - step * (1.0 - 2.0 * r + alpha * y)
            y_stepped = y + step * z_stepped
            large_y = tl.maximum(large_y, tl.maximum(tl.abs(y), tl.abs(new_y)))
            large_z = tl.maximum(large_z, tl.maximum(tl.abs(z), tl.abs(new_z)))
            wrong_y = y_stepped - new_y + drawn(i, 0) * ROUNDING * tl.maximum(tl.abs(y), tl.abs(new_y))
            wrong_z = z_stepped - new_z + drawn(i, 7919) * ROUNDING * tl.maximum(tl.abs(z), tl.abs(new_z))
            wrong_y, wrong_z = tl.where(inside, wrong_y, 0.0), tl.where(inside, wrong_z, 0.0)
            c, d, f = c - (pull * a + pull), d - pull * b, f - pull * e
            a, b, e = a + step * c, b + (step * d + step), e + step * f + wrong_y
            f += wrong_z
            hs += (step,)
            pulls += (pull,)
            by_y += (wrong_y,)
            by_z += (wrong_z,)
        now_y, now_z, last_y, last_z = entered(a, b, c, d, e, f, off_y, off_z)
        off_y, off_z = of_lane(last_y, lane, LANES - 1), of_lane(last_z, lane, LANES - 1)
        for u in tl.static_range(EACH):
            now_z = now_z - pulls[u] * now_y
            now_y = now_y + hs[u] * now_z + by_y[u]
            now_z += by_z[u]
            # what is no number is not smaller either
            most_y = tl.where(tl.abs(now_y) <= most_y, most_y, tl.where(tl.abs(now_y) < HUGE, tl.abs(now_y), HUGE))
            most_z = tl.where(tl.abs(now_z) <= most_z, most_z, tl.where(tl.abs(now_z) < HUGE, tl.abs(now_z), HUGE))
    share_y = tl.max(most_y, 0) / tl.maximum(tl.max(large_y, 0), 1e-30)
    share_z = tl.max(most_z, 0) / tl.maximum(tl.max(large_z, 0), 1e-30)
    huge = tl.maximum(tl.max(most_y, 0), tl.max(most_z, 0)) >= HUGE
    tl.store(differences + chain, tl.where(huge, float("inf"), tl.maximum(share_y, share_z)))
