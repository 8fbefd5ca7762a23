"""`pendula::unicornn_newton` on a GPU: tensors in, kernels started, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from pendula.ops.gpu import device, newton_kernels

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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `unicornn_newton` gives."""
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
