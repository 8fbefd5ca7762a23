# mypy: ignore-errors
# Triton's language is not Python to a type checker
"""UnICORNN on a GPU: one lane per oscillator of each sequence goes through all steps with its state in registers.

Numbers of the next U steps are on their way while those of U steps are used. Nothing is shared between lanes, so there
are no barriers and no atomic sums: runs repeat bit for bit. Spec sheet unicornn.md 1.2, 3.1, 3.2.
"""

import triton
import triton.language as tl

from pendula.ops.gpu.elementary import TO_BASE_2, sigmoid_of_base_2

SIZES = ["steps", "batch", "units", "every"]


@triton.jit
def rows(
    pointers, stride, first, steps, inside, TAIL: tl.constexpr, U: tl.constexpr, EACH: tl.constexpr, BACK: tl.constexpr
):
    """EACH numbers of each lane from U rows, which may still be on their way; zero from rows that don't exist.

    The rows are those of the steps from `first` on, a multiple of U, or the rows BACK before them. Without TAIL the
    steps are a multiple of U too.
    """
    found = ()
    pointers += stride.to(tl.int64) * first
    chunk = tl.where((first >= 0) & (first < steps), inside, False)
    for u in tl.static_range(U):
        there = chunk
        if TAIL:
            there = tl.where(first + u < steps, chunk, False)
        if u < BACK:
            there = tl.where(first > 0, there, False)
        for i in tl.static_range(EACH):
            # within a chunk 32 bits are enough
            found += (tl.load(pointers + ((u - BACK) * stride + i), mask=there, other=0.0),)
    return found


@triton.jit
def drive_of(taken, V, b, INPUTS: tl.constexpr, u: tl.constexpr):
    """The drive of step u of a chunk."""
    if INPUTS == 0:
        found = taken[u]
    else:
        found = b
        for i in tl.static_range(INPUTS):
            found += V[i] * taken[u * INPUTS + i]
    return found


@triton.jit
def weights(V, n, inside, INPUTS: tl.constexpr):
    found = ()
    for i in tl.static_range(INPUTS):
        found += (tl.load(V + n * INPUTS + i, mask=inside, other=0.0),)
    return found


@triton.jit(do_not_specialize=SIZES)
def forward(
    x,
    V,
    b,
    drive,
    w,
    h,
    alpha,
    tau,
    lengths,
    y,
    z,
    outputs,
    y_last,
    z_last,
    kept,
    steps,
    batch,
    units,
    every,
    INPUTS: tl.constexpr,
    U: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """With INPUTS the drive is made here from x, V and b. `every` steps are a multiple of U. TAIL: steps are not."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = c < batch * units
    n, row = c % units, c // units
    chains = batch * units
    y = tl.load(y + c, mask=inside, other=0.0)
    z = tl.load(z + c, mask=inside, other=0.0)
    w = tl.load(w + n, mask=inside, other=0.0) * TO_BASE_2
    h0 = tl.load(h + n, mask=inside, other=0.0)
    alpha = tl.load(alpha + n, mask=inside, other=0.0)
    V_n = weights(V, n, inside, INPUTS)
    b_n = tl.load(b + n, mask=inside, other=0.0) if b is not None else tl.zeros((BLOCK,), tl.float32)
    left = tl.load(lengths + row, mask=inside, other=0).to(tl.int32) if lengths is not None else 0
    # the drive, or x itself
    source = drive + c if INPUTS == 0 else x + row * INPUTS
    stride = chains if INPUTS == 0 else batch * INPUTS
    EACH: tl.constexpr = 1 if INPUTS == 0 else INPUTS
    outputs += c
    ahead = rows(source, stride, 0, steps, inside, TAIL, U, EACH, 0)
    ahead_tau = rows(tau + row, batch, 0, steps, inside, TAIL, U, 1, 0) if tau is not None else ()
    for chunk in range((steps + U - 1) // U):
        first = chunk * U
        shown_at = outputs + chains.to(tl.int64) * first
        # two conditions of two kinds: one for the compiler, one for the run
        if kept is not None:  # noqa: SIM102
            if (first > 0) & (first % every == 0):
                place = kept + chains.to(tl.int64) * (2 * (first // every - 1)) + c
                tl.store(place, y, mask=inside)
                tl.store(place + chains, z, mask=inside)
        now, now_tau = ahead, ahead_tau
        ahead = rows(source, stride, first + U, steps, inside, TAIL, U, EACH, 0)
        ahead_tau = rows(tau + row, batch, first + U, steps, inside, TAIL, U, 1, 0) if tau is not None else ()
        for u in tl.static_range(U):
            step = h0 * now_tau[u] if tau is not None else h0
            r = sigmoid_of_base_2(w * y + drive_of(now, V_n, b_n, INPUTS, u) * TO_BASE_2, FAST)
            # tanh + alpha y, with only r on the way from y to y; h and 2 h r apart from each other cost a digit
            force = (alpha * y + 1.0) - 2.0 * r
            moved = z - step * force
            shown = y + step * moved
            there = tl.where(first + u < steps, inside, False) if TAIL else inside
            if TAIL or lengths is not None:
                runs = (first + u < left) & there if lengths is not None else there
                z, y = tl.where(runs, moved, z), tl.where(runs, shown, y)
                shown = tl.where(runs, shown, 0.0)
            else:
                z, y = moved, shown
            tl.store(shown_at + u * chains, shown, mask=there)
    tl.store(y_last + c, y, mask=inside)
    tl.store(z_last + c, z, mask=inside)


@triton.jit
def pull_back(y, z, by_y, by_z, shown, by_shown, drive, w, h, alpha, STORED: tl.constexpr, FAST: tl.constexpr):
    """A step undone and its adjoint: the state before it, gradients by that state and by the drive, and h's parts."""
    y = shown if STORED else y - h * z
    r = sigmoid_of_base_2((w * y + drive) * TO_BASE_2, FAST)
    force = 1.0 - 2.0 * r + alpha * y
    by_y += by_shown
    by_z += h * by_y
    pull = h * by_z
    by_drive = -4.0 * pull * r * (1.0 - r)
    by_h = by_y * z - by_z * force
    z += h * force
    by_y += by_drive * w - alpha * pull
    return y, z, by_y, by_z, by_drive, by_h, pull


@triton.jit
def checkpoint(kept, index, chains, inside):
    """The state that was kept under this index; nothing below 0."""
    there = tl.where(index >= 0, inside, False)
    place = kept + chains.to(tl.int64) * (2 * index)
    return tl.load(place, mask=there, other=0.0), tl.load(place + chains, mask=there, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def backward(
    x,
    V,
    b,
    drive,
    w,
    h,
    alpha,
    tau,
    lengths,
    y0,
    y,
    z,
    outputs,
    kept,
    by_outputs,
    by_y,
    by_z,
    by_drive,
    by_span,
    sums,
    steps,
    batch,
    units,
    every,
    INPUTS: tl.constexpr,
    U: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
    FAST: tl.constexpr,
):
    """From the last step to the first. With `outputs` the positions are read there and only velocities rebuilt.

    y, z are the final state and by_y, by_z its gradients, which become those of the initial state. `sums` (4 + INPUTS,
    B, N) takes each chain's part of the gradients by w, h, alpha, b and V. `by_span` takes what tau gets from each.
    """
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = c < batch * units
    n, row = c % units, c // units
    chains = batch * units
    start = tl.load(y0 + c, mask=inside, other=0.0)
    y = tl.load(y + c, mask=inside, other=0.0)
    z = tl.load(z + c, mask=inside, other=0.0)
    g_y = tl.load(by_y + c, mask=inside, other=0.0)
    g_z = tl.load(by_z + c, mask=inside, other=0.0)
    w = tl.load(w + n, mask=inside, other=0.0)
    h0 = tl.load(h + n, mask=inside, other=0.0)
    alpha = tl.load(alpha + n, mask=inside, other=0.0)
    V_n = weights(V, n, inside, INPUTS)
    b_n = tl.load(b + n, mask=inside, other=0.0) if b is not None else tl.zeros((BLOCK,), tl.float32)
    left = tl.load(lengths + row, mask=inside, other=0).to(tl.int32) if lengths is not None else 0
    # the drive, or x itself
    source = drive + c if INPUTS == 0 else x + row * INPUTS
    stride = chains if INPUTS == 0 else batch * INPUTS
    EACH: tl.constexpr = 1 if INPUTS == 0 else INPUTS
    of_w = tl.zeros((BLOCK,), tl.float32)
    of_h, of_alpha, of_b = of_w, of_w, of_w
    of_V = ()
    for _ in tl.static_range(INPUTS):
        of_V += (of_w,)
    # of the state before the chunk that ends at a checkpoint: on its way since the checkpoint behind it
    kept_y, kept_z = of_w, of_w
    if kept is not None:
        kept_y, kept_z = checkpoint(kept + c, (steps - 1) // every - 1, chains, inside)
    chunks = (steps + U - 1) // U
    first = (chunks - 1) * U
    ahead = rows(source, stride, first, steps, inside, TAIL, U, EACH, 0)
    ahead_y = rows(outputs + c, chains, first, steps, inside, TAIL, U, 1, 1) if outputs is not None else ()
    ahead_g = rows(by_outputs + c, chains, first, steps, inside, TAIL, U, 1, 0) if by_outputs is not None else ()
    ahead_tau = rows(tau + row, batch, first, steps, inside, TAIL, U, 1, 0) if tau is not None else ()
    for chunk in range(chunks):
        first = (chunks - 1 - chunk) * U
        here = chains.to(tl.int64) * first + c
        now, now_y, now_g, now_tau = ahead, ahead_y, ahead_g, ahead_tau
        # before the first step these rows are negative, and nothing is read
        ahead = rows(source, stride, first - U, steps, inside, TAIL, U, EACH, 0)
        ahead_y = rows(outputs + c, chains, first - U, steps, inside, TAIL, U, 1, 1) if outputs is not None else ()
        ahead_g = (
            rows(by_outputs + c, chains, first - U, steps, inside, TAIL, U, 1, 0) if by_outputs is not None else ()
        )
        ahead_tau = rows(tau + row, batch, first - U, steps, inside, TAIL, U, 1, 0) if tau is not None else ()
        for u in tl.static_range(U - 1, -1, -1):
            step = h0 * now_tau[u] if tau is not None else h0
            d = drive_of(now, V_n, b_n, INPUTS, u)
            shown = y
            if outputs is not None:
                shown = tl.where(first + u == 0, start, now_y[u]) if u == 0 else now_y[u]
            by_shown = now_g[u] if by_outputs is not None else 0.0
            y_, z_, g_y_, g_z_, p, by_h, pull = pull_back(
                y, z, g_y, g_z, shown, by_shown, d, w, step, alpha, outputs is not None, FAST
            )
            there = tl.where(first + u < steps, inside, False) if TAIL else inside
            if TAIL or lengths is not None:
                runs = (first + u < left) & there if lengths is not None else there
                y, z = tl.where(runs, y_, y), tl.where(runs, z_, z)
                g_y, g_z = tl.where(runs, g_y_, g_y), tl.where(runs, g_z_, g_z)
                p, by_h, pull = tl.where(runs, p, 0.0), tl.where(runs, by_h, 0.0), tl.where(runs, pull, 0.0)
            else:
                y, z, g_y, g_z = y_, z_, g_y_, g_z_
            of_w += p * y
            of_h += by_h * now_tau[u] if tau is not None else by_h
            of_alpha -= pull * y
            of_b += p
            of_V_ = ()
            for i in tl.static_range(INPUTS):
                of_V_ += (of_V[i] + p * now[u * INPUTS + i],)
            of_V = of_V_
            if by_drive is not None:
                tl.store(by_drive + here + u * chains, p, mask=there)
            if by_span is not None:
                tl.store(by_span + here + u * chains, by_h * h0, mask=there)
        if kept is not None:  # noqa: SIM102
            if (first > 0) & (first % every == 0):
                y, z = kept_y, kept_z
                kept_y, kept_z = checkpoint(kept + c, first // every - 2, chains, inside)
    tl.store(by_y + c, g_y, mask=inside)
    tl.store(by_z + c, g_z, mask=inside)
    tl.store(sums + c, of_w, mask=inside)
    tl.store(sums + chains + c, of_h, mask=inside)
    tl.store(sums + 2 * chains + c, of_alpha, mask=inside)
    tl.store(sums + 3 * chains + c, of_b, mask=inside)
    for i in tl.static_range(INPUTS):
        tl.store(sums + chains.to(tl.int64) * (4 + i) + c, of_V[i], mask=inside)
