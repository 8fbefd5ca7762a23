# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""Linear oscillators on a GPU: one lane per oscillator of each sequence and chunk of steps.

A step is the same 2 x 2 matrix at all times, so how the state at a chunk's beginning reaches its end is one matrix per
oscillator. `forward` and `backward` run twice: from rest, which gives what a chunk adds, and from what `carry` has made
of it. Nothing is shared between lanes, so there are no barriers and no atomic sums: runs repeat bit for bit.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.unicornn_kernels import rows

SIZES = ["steps", "every", "count", "blocks", "batch", "units", "force_step", "force_row"]


@triton.jit
def step_of(matrix, n, units, inside):
    """What new z and y take of z, y and the force: six numbers of each lane."""
    found = ()
    for i in tl.static_range(6):
        found += (tl.load(matrix + i * units + n, mask=inside, other=0.0),)
    return found


@triton.jit(do_not_specialize=SIZES)
def forward(
    force,
    matrix,
    entries,
    z,
    y,
    steps,
    every,
    blocks,
    batch,
    units,
    force_step,
    force_row,
    U: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """From rest to the row of `entries` behind the chunk's; with z and y, which take all states, from the chunk's row.

    `every` is a multiple of U. TAIL: the last chunk's steps are not.
    """
    chunk, chains = tl.program_id(0) // blocks, batch * units
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = c < chains
    n = c % units
    zz, zy, zf, yz, yy, yf = step_of(matrix, n, units, inside)
    begin = chunk * every
    length = tl.minimum(every, steps - begin)
    force += force_step.to(tl.int64) * begin + (c // units).to(tl.int64) * force_row + n
    entries += 2 * chains.to(tl.int64) * chunk + c
    here = chains.to(tl.int64) * begin + c
    s_z, s_y = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    if z is not None:
        s_z = tl.load(entries, mask=inside, other=0.0)
        s_y = tl.load(entries + chains, mask=inside, other=0.0)
    ahead = rows(force, force_step, 0, length, inside, TAIL, U, 1, 0)
    for part in range((length + U - 1) // U):
        first = part * U
        now = ahead
        ahead = rows(force, force_step, first + U, length, inside, TAIL, U, 1, 0)
        at = here + chains.to(tl.int64) * first
        for u in tl.static_range(U):
            # what stands in brackets is not on the way from state to state
            new_z = zz * s_z + (zy * s_y + zf * now[u])
            s_y = yz * s_z + (yy * s_y + yf * now[u])
            s_z = new_z
            if z is not None:
                there = tl.where(first + u < length, inside, False) if TAIL else inside
                tl.store(z + at + u * chains, s_z, mask=there)
                tl.store(y + at + u * chains, s_y, mask=there)
    if z is None:
        tl.store(entries + 2 * chains, s_z, mask=inside)
        tl.store(entries + 3 * chains, s_y, mask=inside)


@triton.jit(do_not_specialize=[*SIZES, "levels"])
def carry(
    matrix,
    entries,
    start_z,
    start_y,
    count,
    levels,
    batch,
    units,
    BACK: tl.constexpr,
    U: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """What each of `count` chunks adds, in rows of `entries`, becomes the state that the chunk begins with.

    2^levels steps are a chunk. BACK: cotangents, from the last row to the first, and from zero.
    """
    chains = batch * units
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = c < chains
    zz, zy, _, yz, yy, _ = step_of(matrix, c % units, units, inside)
    # squared over and over, it doubles its relative error each time
    zz, zy, yz, yy = zz.to(tl.float64), zy.to(tl.float64), yz.to(tl.float64), yy.to(tl.float64)
    for _ in range(levels):
        both, trace = zy * yz, zz + yy
        zz, zy, yz, yy = zz * zz + both, zy * trace, yz * trace, yy * yy + both
    zz, zy, yz, yy = zz.to(tl.float32), zy.to(tl.float32), yz.to(tl.float32), yy.to(tl.float32)
    s_z, s_y = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    stride = 2 * chains
    entries += c
    if BACK:
        zy, yz = yz, zy
        entries += stride.to(tl.int64) * (count - 1)
        stride = -stride
    else:
        s_z = tl.load(start_z + c, mask=inside, other=0.0)
        s_y = tl.load(start_y + c, mask=inside, other=0.0)
    tl.store(entries, s_z, mask=inside)
    tl.store(entries + chains, s_y, mask=inside)
    entries += stride
    ahead_z = rows(entries, stride, 0, count - 1, inside, True, U, 1, 0)
    ahead_y = rows(entries + chains, stride, 0, count - 1, inside, True, U, 1, 0)
    for part in range((count + U - 2) // U):
        first = part * U
        now_z, now_y = ahead_z, ahead_y
        ahead_z = rows(entries, stride, first + U, count - 1, inside, True, U, 1, 0)
        ahead_y = rows(entries + chains, stride, first + U, count - 1, inside, True, U, 1, 0)
        at = entries + stride.to(tl.int64) * first
        for u in tl.static_range(U):
            new_z = zz * s_z + (zy * s_y + now_z[u])
            s_y = yz * s_z + (yy * s_y + now_y[u])
            s_z = new_z
            there = tl.where(first + u < count - 1, inside, False)
            tl.store(at + u * stride, s_z, mask=there)
            tl.store(at + u * stride + chains, s_y, mask=there)


@triton.jit(do_not_specialize=SIZES)
def backward(
    force,
    matrix,
    entries,
    by_z,
    by_y,
    z0,
    y0,
    z,
    y,
    by_force,
    sums,
    by_z0,
    by_y0,
    steps,
    every,
    blocks,
    batch,
    units,
    force_step,
    force_row,
    U: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """From zero to the row of `entries` before the chunk's, of chunks from the second on; with `by_force` from the
    chunk's row. `sums` (K, 6, B, P), if it is there, takes each chunk's part of the gradients by the matrix."""
    chunk, chains = tl.program_id(0) // blocks, batch * units
    if by_force is None:
        chunk += 1
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = c < chains
    n = c % units
    zz, zy, zf, yz, yy, yf = step_of(matrix, n, units, inside)
    begin = chunk * every
    length = tl.minimum(every, steps - begin)
    force += force_step.to(tl.int64) * begin + (c // units).to(tl.int64) * force_row + n
    entries += 2 * chains.to(tl.int64) * chunk + c
    here = chains.to(tl.int64) * begin + c
    # what a state gets from the steps behind it
    g_z, g_y = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    if by_force is not None:
        g_z = tl.load(entries, mask=inside, other=0.0)
        g_y = tl.load(entries + chains, mask=inside, other=0.0)
    start_z, start_y = g_z, g_y
    if sums is not None:
        start_z = tl.load(tl.where(chunk > 0, z + here - chains, z0 + c), mask=inside, other=0.0)
        start_y = tl.load(tl.where(chunk > 0, y + here - chains, y0 + c), mask=inside, other=0.0)
    of_zz = tl.zeros((BLOCK,), tl.float32)
    of_zy, of_zf, of_yz, of_yy, of_yf = of_zz, of_zz, of_zz, of_zz, of_zz
    parts = (length + U - 1) // U
    first = (parts - 1) * U
    ahead_gz = rows(by_z + here, chains, first, length, inside, TAIL, U, 1, 0) if by_z is not None else ()
    ahead_gy = rows(by_y + here, chains, first, length, inside, TAIL, U, 1, 0) if by_y is not None else ()
    ahead_z = rows(z + here, chains, first, length, inside, TAIL, U, 1, 1) if sums is not None else ()
    ahead_y = rows(y + here, chains, first, length, inside, TAIL, U, 1, 1) if sums is not None else ()
    ahead_f = rows(force, force_step, first, length, inside, TAIL, U, 1, 0) if sums is not None else ()
    for part in range(parts):
        first = (parts - 1 - part) * U
        now_gz, now_gy, now_z, now_y, now_f = ahead_gz, ahead_gy, ahead_z, ahead_y, ahead_f
        ahead_gz = rows(by_z + here, chains, first - U, length, inside, TAIL, U, 1, 0) if by_z is not None else ()
        ahead_gy = rows(by_y + here, chains, first - U, length, inside, TAIL, U, 1, 0) if by_y is not None else ()
        ahead_z = rows(z + here, chains, first - U, length, inside, TAIL, U, 1, 1) if sums is not None else ()
        ahead_y = rows(y + here, chains, first - U, length, inside, TAIL, U, 1, 1) if sums is not None else ()
        ahead_f = rows(force, force_step, first - U, length, inside, TAIL, U, 1, 0) if sums is not None else ()
        at = here + chains.to(tl.int64) * first
        for u in tl.static_range(U - 1, -1, -1):
            l_z = g_z + now_gz[u] if by_z is not None else g_z
            l_y = g_y + now_gy[u] if by_y is not None else g_y
            if TAIL:
                # behind the last step nothing has come in yet, so zero stays zero unless `entries` says otherwise
                there = tl.where(first + u < length, inside, False)
                g_z = tl.where(there, zz * l_z + yz * l_y, g_z)
                g_y = tl.where(there, zy * l_z + yy * l_y, g_y)
                l_z, l_y = tl.where(there, l_z, 0.0), tl.where(there, l_y, 0.0)
            else:
                there = inside
                g_z, g_y = zz * l_z + yz * l_y, zy * l_z + yy * l_y
            if by_force is not None:
                tl.store(by_force + at + u * chains, zf * l_z + yf * l_y, mask=there)
            if sums is not None:
                before_z, before_y = now_z[u], now_y[u]
                if u == 0:
                    before_z = tl.where(first == 0, start_z, before_z)
                    before_y = tl.where(first == 0, start_y, before_y)
                of_zz += l_z * before_z
                of_zy += l_z * before_y
                of_zf += l_z * now_f[u]
                of_yz += l_y * before_z
                of_yy += l_y * before_y
                of_yf += l_y * now_f[u]
    if by_force is None:
        tl.store(entries - 2 * chains, g_z, mask=inside)
        tl.store(entries - chains, g_y, mask=inside)
    else:
        tl.store(by_z0 + c, g_z, mask=tl.where(chunk == 0, inside, False))
        tl.store(by_y0 + c, g_y, mask=tl.where(chunk == 0, inside, False))
    if sums is not None:
        sums += 6 * chains.to(tl.int64) * chunk + c
        tl.store(sums, of_zz, mask=inside)
        tl.store(sums + chains, of_zy, mask=inside)
        tl.store(sums + 2 * chains, of_zf, mask=inside)
        tl.store(sums + 3 * chains, of_yz, mask=inside)
        tl.store(sums + 4 * chains, of_yy, mask=inside)
        tl.store(sums + 5 * chains, of_yf, mask=inside)
