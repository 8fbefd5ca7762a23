"""Linear oscillators over time in one call: `pendula::linoss_scan` and its backward operator, for a GPU.

Three phases, parallel in time: every chunk of steps from rest; how a chunk's last state changes the next one's first,
by a power of the step; every chunk again, from the state it begins with. On a GPU they are kernels in Triton
(`pendula.ops.gpu.linoss`). On the processor, where cells take the associative scan, the same phases are a few lines.
"""

from __future__ import annotations

import typing
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pendula.ops.gpu import device

NAME = "pendula::linoss_scan"


def chunk_of(steps: int) -> int:
    """Steps of a chunk, a power of two: as long as there are chunks."""
    return 1 << ((steps - 1).bit_length() + 1) // 2


@torch.library.custom_op(NAME, mutates_args=())
def linoss_scan(force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
    """Velocities z and positions y after every step, each (T, B, P).

    force (T, B, P); matrix (2, 3, P) as of `step_matrix`: new z and y of z, y and the force; z0, y0 (B, P).
    """
    _check(force, matrix, z0, y0)
    forces = matrix[:, 2, None, None] * force
    z, y = _states(matrix[:, :2], forces, torch.stack((z0, y0)))
    return z.clone(), y.clone()


@linoss_scan.register_fake
def _(force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
    return force.new_empty(force.shape), force.new_empty(force.shape)


@linoss_scan.register_kernel("cuda")
def _(*given: Any) -> tuple[Tensor, Tensor]:
    from pendula.ops.gpu import linoss as on_gpu

    return on_gpu.forward(*given)


@torch.library.custom_op("pendula::linoss_scan_backward", mutates_args=())
def linoss_scan_backward(
    by_z: Tensor | None,
    by_y: Tensor | None,
    force: Tensor,
    matrix: Tensor,
    z0: Tensor,
    y0: Tensor,
    z: Tensor,
    y: Tensor,
    wants_matrix: bool,
) -> typing.List[Tensor]:  # noqa: UP006 (not every torch that we take knows another name of it)
    """Gradients of force, matrix (empty where not wanted), z0 and y0."""
    _check(force, matrix, z0, y0)
    back, none = matrix[:, :2].transpose(0, 1), torch.zeros_like(z)
    by_states = torch.stack([none if g is None else g for g in (by_z, by_y)])
    # cotangents obey the same recurrence, transposed and run from the end
    by_forces = _states(back, by_states.flip(1), torch.zeros_like(by_states[:, 0])).flip(1)
    by_matrix = matrix.new_empty(0)
    if wants_matrix:
        before = [torch.cat((start.unsqueeze(0), seen[:-1])) for start, seen in ((z0, z), (y0, y))]
        parts = [[(row * c).sum((0, 1), dtype=torch.float64) for c in (*before, force)] for row in by_forces]
        by_matrix = torch.stack([torch.stack(row) for row in parts]).to(matrix.dtype)
    by_z0, by_y0 = _times(back, by_forces[:, 0])
    return [(matrix[:, 2, None, None] * by_forces).sum(0), by_matrix, by_z0.clone(), by_y0.clone()]


@linoss_scan_backward.register_fake
def _(by_z: Any, by_y: Any, force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor, *rest: Any) -> list[Tensor]:
    by_matrix = matrix.new_empty(matrix.shape if rest[-1] else 0)
    return [force.new_empty(force.shape), by_matrix, z0.new_empty(z0.shape), y0.new_empty(y0.shape)]


@linoss_scan_backward.register_kernel("cuda")
def _(*given: Any) -> list[Tensor]:
    from pendula.ops.gpu import linoss as on_gpu

    return on_gpu.backward(*given)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_z: Any, by_y: Any) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    found = linoss_scan_backward(by_z, by_y, *ctx.saved_tensors, wanted[1])
    return tuple(g if want else None for g, want in zip(found, wanted, strict=True))


linoss_scan.register_autograd(_backward, setup_context=_setup)


def objection(force: Tensor, matrix: Tensor, state: tuple[Tensor, ...], tau: Tensor | None) -> str | None:
    """Why not this scan but the associative one, as a sentence; None when it can run."""
    if not force.is_cuda:
        return f"{NAME} runs on a GPU, and the tensors are on {force.device}"
    if tau is not None:
        return f"{NAME} takes steps of one length, and timespans scale them"
    return device.objection(NAME, force, force, matrix, *state)


def _times(M: Tensor, s: Tensor) -> Tensor:
    """Blocks (2, 2, P) times states (2, ..., P)."""
    return torch.stack([row[0] * s[0] + row[1] * s[1] for row in M])


def _walk(M: Tensor, forces: Tensor, s: Tensor) -> list[Tensor]:
    """The states after each of the steps of all chunks at once: forces (2, K, L, B, P), s (2, K, B, P)."""
    seen = []
    for now in forces.unbind(2):
        s = _times(M, s) + now
        seen.append(s)
    return seen


def _states(M: Tensor, forces: Tensor, start: Tensor) -> Tensor:
    """All states (2, T, B, P) of s = M s + force, in three phases."""
    steps = forces.shape[1]
    every = chunk_of(steps)
    padded = pad(forces, (0, 0, 0, 0, 0, -steps % every)).reshape(2, -1, every, *forces.shape[2:])
    ends = _walk(M, padded, torch.zeros_like(padded[:, :, 0]))[-1]
    # in double: squared over and over, it doubles its relative error each time
    power = torch.linalg.matrix_power(M.double().permute(2, 0, 1), every).permute(1, 2, 0).to(M.dtype)
    entries = [start]
    for end in ends.unbind(1)[:-1]:
        entries.append(_times(power, entries[-1]) + end)
    seen = torch.stack(_walk(M, padded, torch.stack(entries, 1)), 2)
    return seen.flatten(1, 2)[:, :steps]


def _check(force: Tensor, matrix: Tensor, z0: Tensor, y0: Tensor) -> None:
    _, batch, units = force.shape
    sizes = {"matrix": (matrix, (2, 3, units)), "z0": (z0, (batch, units)), "y0": (y0, (batch, units))}
    for label, (tensor, size) in sizes.items():
        if tensor.shape != size or tensor.dtype != force.dtype:
            got = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"linoss_scan needs {label} {size} of {force.dtype}, got {got}")
