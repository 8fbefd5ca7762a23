"""`pendula::unicornn_scan` and its backward operator on a GPU: tensors in, kernels started, tensors out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pendula.ops.gpu import device, unicornn_kernels
from pendula.ops.unicornn import CHECKPOINT, STORE

NARROW = 2
"""Up to so many features of the input the kernel makes its own drive: reading them costs less than reading it."""
MANY, FEW = 32768, 8192
"""Below MANY chains, blocks of 64 lanes reach more of the GPU than blocks of 128; below FEW, few lanes share what waits
for memory, and each looks further ahead."""


def forward(
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    w: Tensor,
    h: Tensor,
    alpha: Tensor,
    V: Tensor,
    b: Tensor | None,
    tau: Tensor | None,
    lengths: Tensor | None,
    memory: int,
    every: int,
    products: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `unicornn_scan` gives; `products` changes nothing here."""
    steps, batch, units = _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    x, y0, z0, w, h, alpha, V, b, tau, lengths = device.contiguous(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    y, z, outputs = torch.empty_like(y0), torch.empty_like(z0), x.new_empty(steps, batch, units)
    kept = x.new_empty((steps - 1) // every if memory == CHECKPOINT else 0, 2, batch, units)
    _launch(
        unicornn_kernels.forward,
        (x, w, h, alpha, V, b, tau, lengths),
        (memory, every),
        0,
        y=y0,
        z=z0,
        outputs=outputs,
        y_last=y,
        z_last=z,
        kept=kept if len(kept) else None,
    )
    return outputs, y, z, kept


def backward(
    by_outputs: Tensor | None,
    by_y: Tensor | None,
    by_z: Tensor | None,
    x: Tensor,
    y0: Tensor,
    z0: Tensor,
    w: Tensor,
    h: Tensor,
    alpha: Tensor,
    V: Tensor,
    b: Tensor | None,
    tau: Tensor | None,
    lengths: Tensor | None,
    outputs: Tensor,
    y: Tensor,
    z: Tensor,
    kept: Tensor,
    memory: int,
    every: int,
    input: bool,
    products: int = 0,
) -> list[Tensor]:
    """What `unicornn_scan_backward` gives."""
    steps, batch, units = _check(x, y0, z0, w, h, alpha, V, b, tau, lengths)
    _check_kept(x, units, memory, every, by_outputs, by_y, by_z, outputs, y, z, kept)
    x, y0, w, h, alpha, V, b, tau, lengths = device.contiguous(x, y0, w, h, alpha, V, b, tau, lengths)
    by_outputs, y, z, kept = device.contiguous(by_outputs, y, z, kept)
    state_y, state_z = (
        torch.zeros_like(y) if g is None else g.clone(memory_format=torch.contiguous_format) for g in (by_y, by_z)
    )
    inputs = x.shape[2]
    narrow = inputs <= NARROW
    sums = x.new_empty(4 + inputs if narrow else 4, batch, units)
    # a narrow input that asks for no gradient leaves nothing to be written at each step
    p = x.new_empty(steps, batch, units) if input or not narrow else None
    spans = None if tau is None else x.new_empty(steps, batch, units)
    _launch(
        unicornn_kernels.backward,
        (x, w, h, alpha, V, b, tau, lengths),
        (memory, every),
        (memory == STORE) + (by_outputs is not None),
        y0=y0,
        y=y,
        z=z,
        outputs=outputs.contiguous() if memory == STORE else None,
        kept=kept if len(kept) else None,
        by_outputs=by_outputs,
        by_y=state_y,
        by_z=state_z,
        by_drive=p,
        by_span=spans,
        sums=sums,
    )
    by_w, by_h, by_alpha, by_b, *rest = (part.sum(0) for part in sums)
    by_x = x.new_empty(0)
    with device.full_precision():
        if input:
            assert p is not None
            by_x = torch.mm(p.flatten(0, 1), V).view(x.shape)
        if narrow:
            by_V = torch.stack(rest, 1)
        else:
            assert p is not None
            by_V = torch.mm(p.flatten(0, 1).mT, x.flatten(0, 1))
    by_tau = x.new_empty(0) if spans is None else spans.sum(2)
    return [by_x, state_y, state_z, by_w, by_h, by_alpha, by_V, by_b, by_tau]


def _launch(
    kernel: Any, given: tuple[Any, ...], remembers: tuple[int, int], read: int, **arrays: Tensor | None
) -> None:
    """`read`: how many of the arrays are read at each step."""
    x, w, h, alpha, V, b, tau, lengths = given
    memory, every = remembers
    (steps, batch, inputs), units = x.shape, w.shape[0]
    narrow = inputs <= NARROW
    chains = batch * units
    block = 64 if chains < MANY else 128
    # 16 steps last as long as a number takes to come; more than 48 numbers of a lane don't fit its registers
    streams = (inputs if narrow else 1) + (tau is not None) + read
    ahead = 32 if chains < FEW and streams == 1 and steps % 32 == 0 else 16 if streams <= 3 else 8
    # a checkpoint lies between two chunks
    ahead = math.gcd(every, ahead) if memory == CHECKPOINT else ahead
    device.launch(
        kernel,
        -(-chains // block),
        x,
        warps=block // 32,
        x=x if narrow else None,
        V=V if narrow else None,
        b=b if narrow else None,
        drive=None if narrow else device.drive(x, V, b),
        w=w,
        h=h,
        alpha=alpha,
        tau=tau,
        lengths=lengths,
        **arrays,
        steps=steps,
        batch=batch,
        units=units,
        every=every,
        INPUTS=inputs if narrow else 0,
        U=ahead,
        TAIL=steps % ahead != 0,
        BLOCK=block,
    )


def _check(x: Tensor, *others: Tensor | None) -> tuple[int, int, int]:
    names = ("y0", "z0", "w", "h", "alpha", "V", "b", "tau", "lengths")
    weight = others[2]
    assert weight is not None
    (steps, batch, inputs), n = x.shape, weight.shape[0]
    sizes = [(batch, n), (batch, n), (n,), (n,), (n,), (n, inputs), (n,), (steps, batch), (batch,)]
    device.check("unicornn_scan", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
    return steps, batch, n


def _check_kept(x: Tensor, n: int, memory: int, every: int, *others: Tensor | None) -> None:
    names = ("by_outputs", "by_y", "by_z", "outputs", "y", "z", "kept")
    steps, batch = x.shape[:2]
    shown, state = (steps, batch, n), (batch, n)
    count = (steps - 1) // every if memory == CHECKPOINT else 0
    sizes = [shown, state, state, shown if memory == STORE else (0,), state, state, (count, 2, batch, n)]
    device.check("unicornn_scan_backward", x, dict(zip(names, zip(others, sizes, strict=True), strict=True)))
