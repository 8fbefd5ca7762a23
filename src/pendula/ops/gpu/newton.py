"""`pendula::unicornn_newton` on a GPU: tensors in, kernels started, tensors out, and the scan's where these fail."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pendula.ops.gpu import device, newton_kernels, unicornn
from pendula.ops.unicornn import STORE
from pendula.ops.unicornn_newton import say_stepped, why_stepped

LANES, EACH = 32, 8
"""Lanes of a warp, and steps of each lane: a window of 256 steps."""


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
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `unicornn_newton` gives. The host waits once, for the three numbers by which it is decided who runs."""
    given = (x, y0, z0, w, h, alpha, V, b, tau, lengths)
    outputs, y, z, counts, differences = solve(*given)
    how = _summary(counts, differences, x.shape[0], lengths).cpu()
    difference = float(how[2])
    reason = why_stepped("UnICORNN", None if math.isnan(difference) else difference, tolerance, x.dtype)
    if reason is None:
        return outputs, y, z, how
    say_stepped("UnICORNN", reason)
    # its memory is what the scan needs
    del outputs
    outputs, y, z, _ = unicornn.forward(*given, STORE, 1)
    return outputs, y, z, how


def _summary(counts: Tensor, differences: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
    """Steps, iterations and difference of the oscillator that fares worst: see `unicornn_newton`."""
    solved, iterations = counts.unbind(-1)
    given_up = solved < (steps if lengths is None else lengths.unsqueeze(1))
    least = solved.masked_fill(~given_up, steps).min()
    difference = differences.max().masked_fill(given_up.any(), torch.nan)
    return torch.stack([least.double(), iterations.max().double(), difference.double()])


def solve(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, last y and z by Newton's method; steps and iterations (B, N, 2) and difference (B, N) it has of each."""
    (steps, batch, inputs), units = x.shape, w.shape[0]
    sizes = [(batch, units), (batch, units), (units,), (units,), (units,), (units, inputs), (units,), (steps, batch)]
    names = ("y0", "z0", "w", "h", "alpha", "V", "b", "tau", "lengths")
    given = (y0, z0, w, h, alpha, V, b, tau, lengths)
    device.check("unicornn_newton", x, dict(zip(names, zip(given, [*sizes, (batch,)], strict=True), strict=True)))
    y0, z0, w, h, alpha, lengths = device.contiguous(y0, z0, w, h, alpha, lengths)
    # a lane reads the drive of steps that follow each other
    with device.full_precision():
        drive = torch.matmul(V, x.permute(1, 2, 0))
    if b is not None:
        drive += b.unsqueeze(1)
    spans = None if tau is None else tau.mT.contiguous()
    # outputs behind a sequence's end are zero
    ys = torch.empty_like(drive) if lengths is None else torch.zeros_like(drive)
    zs = torch.empty_like(drive)
    y, z = y0.clone(), z0.clone()
    counts = torch.empty(batch, units, 2, dtype=torch.int32, device=x.device)
    differences = torch.empty_like(y0)
    moved = {"state_y": y, "state_z": z, "ys": ys, "zs": zs, "counts": counts}
    judged = {"start_y": y0, "start_z": z0, "ys": ys, "zs": zs, "differences": differences}
    for kernel, arrays in ((newton_kernels.solve, moved), (newton_kernels.judge, judged)):
        device.launch(
            kernel,
            batch * units,
            x,
            warps=1,
            drive=drive,
            w=w,
            h=h,
            alpha=alpha,
            tau=spans,
            lengths=lengths,
            **arrays,
            steps=steps,
            units=units,
            LANES=LANES,
            EACH=EACH,
        )
    return ys.permute(2, 0, 1).contiguous(), y, z, counts, differences
