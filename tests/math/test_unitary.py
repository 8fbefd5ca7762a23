"""modReLU and the factors of unitary matrices: oracles U4 to U6 of the spec sheet urnn.md, and its section 4."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pendula.math.unitary import (
    block_angles,
    butterfly_pairs,
    complex_of,
    direction,
    max_tangential_gain,
    modrelu,
    modrelu_gains,
    pairs_of,
    phase,
    reflect,
    rotate,
    rotate_back,
    rotation_factors,
    rotation_layout,
    scaled_cayley,
    skew_from,
    structured_adjoint,
    structured_product,
    tunable_pairs,
)
from tests import tolerance
from tests.cells.sheet import det

PRINTED = {"rtol": 1e-13, "atol": 1e-15}
"""Sheet numbers with 15 digits, a few operations from their input."""


def double(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def complexes(*values: complex) -> Tensor:
    return torch.tensor(values, dtype=torch.complex128)


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


# --- modReLU


Z4, B4 = complexes(3 + 4j, -0.3 + 0.4j, 0, 0.001), double([-1.0, -0.6, 0.2, 0.5])


def test_u4_modrelu() -> None:
    assert_close(modrelu(Z4, B4), complexes(2.4 + 3.2j, 0, 0, 0.501), **PRINTED)


def test_u4_modrelu_with_the_epsilon_of_the_authors() -> None:
    expected = complexes(2.3999952000096 + 3.1999936000128j, 0, 0, 0.496039603960396)
    assert_close(modrelu(Z4, B4, 1e-5), expected, **PRINTED)


def test_u5_backward() -> None:
    z, b = complexes(3.1 + 4j, -0.2 + 0.4j).requires_grad_(), double([0.3, -0.1]).requires_grad_()
    modrelu(z, b).backward(complexes(1 - 2j, 0.5 + 0.3j))
    expected = complexes(1.09444240763984 - 2.07319286592087j, 0.383724465170011 + 0.241862232585005j)
    assert_close(z.grad, expected, **PRINTED)
    assert_close(b.grad, double([-0.968258438914674, 0.0447213595499958]), **PRINTED)


def test_u5_gains() -> None:
    along, across = modrelu_gains(complexes(0.3 + 0.4j), 0.1)
    assert_close(torch.cat((along, across)), double([1, 1.2]), **PRINTED)
    assert max_tangential_gain(complexes(0.3 + 0.4j, 5j), 0.1).item() == pytest.approx(1.2)


def jacobian(z: Tensor, b: float, eps: float) -> Tensor:
    """Real 2 x 2 Jacobian of modReLU at one complex number."""

    def run(point: Tensor) -> Tensor:
        return torch.view_as_real(modrelu(torch.view_as_complex(point), b, eps))

    found = torch.autograd.functional.jacobian(run, torch.view_as_real(z))
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
@pytest.mark.parametrize("b", [0.4, 0.0, -0.2])
def test_the_gains_are_the_singular_values_of_the_jacobian(b: float, eps: float) -> None:
    for z in rand(5):
        gains = torch.stack(modrelu_gains(z, b, eps))
        expected = torch.linalg.svdvals(jacobian(z, b, eps))
        assert_close(gains.sort(descending=True).values, expected, **tolerance.ROUNDING)


def test_a_dead_unit_has_no_gain_and_no_gradient() -> None:
    z, b = complexes(0.3 + 0.4j).requires_grad_(), double([-0.6]).requires_grad_()
    modrelu(z, b).backward(complexes(1 - 2j))
    assert not z.grad.any()
    assert not b.grad.any()
    assert not torch.cat(modrelu_gains(z, b)).any()


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("b", [0.2, 0.0, -0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_at_zero_value_and_gradient_are_zero(dtype: torch.dtype, b: float, eps: float) -> None:
    z = torch.zeros(3, dtype=dtype, requires_grad=True)
    bias = torch.full((3,), b, dtype=z.real.dtype if dtype.is_complex else dtype, requires_grad=True)
    new = modrelu(z, bias, eps)
    new.backward(torch.full((3,), 1 - 2j if dtype.is_complex else 1.0, dtype=dtype))
    for tensor in (new, z.grad, bias.grad):
        # exactly: NaN would differ
        assert_close(tensor, torch.zeros_like(tensor), **tolerance.EXACT)
    if dtype.is_complex:
        assert_close(max_tangential_gain(z, bias, eps), torch.zeros_like(bias[0]), **tolerance.EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_at_the_smallest_normal_numbers_modrelu_is_finite(dtype: torch.dtype) -> None:
    tiny = torch.finfo(torch.float32).tiny
    z = torch.full((1,), 2 * tiny, dtype=dtype, requires_grad=True)
    new = modrelu(z, torch.tensor([0.1]))
    assert_close(new, torch.full((1,), 0.1, dtype=dtype))
    new.abs().sum().backward()
    assert torch.isfinite(z.grad.abs()).all()


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_of_modrelu_are_those_of_finite_differences(dtype: torch.dtype, eps: float) -> None:
    z, b = torch.randn(4, 6, dtype=dtype).requires_grad_(), (0.5 * torch.randn(6).double()).requires_grad_()
    assert (modrelu(z, b) == 0).any()
    assert torch.autograd.gradcheck(lambda z, b: modrelu(z, b, eps), (z, b))


def test_real_modrelu_is_the_complex_one_on_the_real_line() -> None:
    z, b = torch.randn(50).double(), torch.randn(50).double()
    assert_close(modrelu(z, b), modrelu(torch.complex(z, 0 * z), b).real, **tolerance.ROUNDING)
    assert_close(modrelu(z, b), torch.sign(z) * torch.relu(z.abs() + b), **tolerance.EXACT)


def test_p4_with_a_bias_that_is_never_positive_modrelu_brings_points_together() -> None:
    z, w, b = rand(2000), rand(2000), -torch.rand(2000).double()
    assert ((modrelu(z, b) - modrelu(w, b)).abs() <= (z - w).abs() * (1 + tolerance.BOUND)).all()


def test_p4_with_a_bias_that_is_never_positive_modrelu_is_the_proximal_map_of_the_modulus() -> None:
    z, b = rand(200), -torch.rand(200).double()

    def cost(w: Tensor) -> Tensor:
        return 0.5 * (w - z).abs() ** 2 - b * w.abs()

    best = cost(modrelu(z, b))
    assert all((best <= cost(modrelu(z, b) + 0.1 * rand(200)) + 1e-14).all() for _ in range(20))


# --- the seven factors


H = torch.complex(det((8,), 0.6, 0.5), det((8,), 0.7, 0.5))
V1 = torch.complex(det((8,), 0.2, 1), det((8,), 0.3, 1))


def bilinear(h: Tensor, v: Tensor) -> Tensor:
    """The authors' reflection: no conjugate under the product."""
    return h - 2 * v.conj() * (v @ h) / v.abs().square().sum()


def test_u6_the_authors_reflection_is_the_one_along_the_conjugate() -> None:
    assert_close(bilinear(H, V1), reflect(H, direction(V1.conj())), rtol=0, atol=1e-15)
    difference = (bilinear(H, V1) - reflect(H, direction(V1))).abs().max()
    assert difference.item() == pytest.approx(0.1486, abs=5e-5)


def test_u6_without_its_factor_two_a_reflection_is_not_unitary() -> None:
    half = 0.5 * (H + reflect(H, direction(V1)))
    assert (half.norm() - H.norm()).abs() > 0.1
    assert_close(reflect(H, direction(V1)).norm(), H.norm(), **PRINTED)


def test_a_reflection_is_its_own_inverse_and_turns_its_axis_round() -> None:
    u, h = direction(rand(7)), rand(3, 7)
    assert_close(reflect(reflect(h, u), u), h, **tolerance.ROUNDING)
    assert_close(reflect(u, u), -u, **tolerance.ROUNDING)


def random_factors(n: int) -> tuple[Tensor, Tensor]:
    return torch.cat((phase(torch.randn(3, n).double()), direction(rand(2, n)))), torch.randperm(n)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 37])
def test_the_adjoint_undoes_the_product_and_is_adjoint(n: int) -> None:
    factors, perm = random_factors(n)
    h, g = rand(4, n), rand(4, n)
    product = structured_product(h, factors, perm)
    assert_close(structured_adjoint(product, factors, perm), h, **tolerance.ROUNDING)
    inner = (g.conj() * product).sum(-1)
    assert_close((structured_adjoint(g, factors, perm).conj() * h).sum(-1), inner, **tolerance.ROUNDING)


def test_the_product_is_the_seven_matrices_one_after_another() -> None:
    n = 6
    (d1, d2, d3, u1, u2), perm = random_factors(n)
    eye = torch.eye(n, dtype=torch.complex128)
    j = torch.arange(n).double()
    F = torch.exp(-2j * torch.pi * torch.outer(j, j) / n) / n**0.5
    R1, R2 = (eye - 2 * torch.outer(u, u.conj()) for u in (u1, u2))
    W = d3.diag() @ R2 @ F.mH @ d2.diag() @ eye[perm] @ R1 @ F @ d1.diag()
    h = rand(3, n)
    assert_close(structured_product(h, torch.stack((d1, d2, d3, u1, u2)), perm), h @ W.mT, **tolerance.ROUNDING)


def grads(run: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The cotangent given to y = run(*inputs), and the gradients of the inputs."""
    leaves = tuple(i.detach().clone().requires_grad_() for i in inputs)
    y = run(*leaves)
    g = torch.randn_like(y)
    return (g.detach(), *torch.autograd.grad(y, leaves, g))


def test_section_4_diagonal_backward() -> None:
    theta, z = torch.randn(5).double(), rand(4, 5)
    g, g_theta, g_z = grads(lambda theta, z: phase(theta) * z, theta, z)
    assert_close(g_z, phase(-theta) * g, **tolerance.ROUNDING)
    assert_close(g_theta, ((phase(theta) * z).conj() * g).imag.sum(0), **tolerance.ROUNDING)


def test_section_4_fourier_transform_backward() -> None:
    g, g_z = grads(lambda z: torch.fft.fft(z, norm="ortho"), rand(4, 5))
    assert_close(g_z, torch.fft.ifft(g, norm="ortho"), **tolerance.ROUNDING)


def test_section_4_permutation_backward() -> None:
    perm = torch.randperm(5)
    g, g_z = grads(lambda z: z.index_select(-1, perm), rand(4, 5))
    expected = torch.empty_like(g)
    expected[:, perm] = g
    assert_close(g_z, expected, **tolerance.EXACT)


def test_section_4_reflection_backward() -> None:
    v, z = rand(5), rand(4, 5)
    g, g_v, g_z = grads(lambda v, z: reflect(z, direction(v)), v, z)
    N = v.abs().square().sum()
    s, q = (z @ v.conj()).unsqueeze(-1), (g @ v.conj()).unsqueeze(-1)
    each = -2 / N * (s.conj() * g + q.conj() * z) + 4 / N**2 * (q.conj() * s).real * v
    assert_close(g_z, reflect(g, direction(v)), **tolerance.ROUNDING)
    assert_close(g_v, each.sum(0), **tolerance.ROUNDING)
    assert (v.conj() @ g_v).abs() < 1e-14


def test_section_4_modrelu_backward() -> None:
    z, b = rand(4, 5), torch.randn(5).double()
    g, g_z, g_b = grads(modrelu, z, b)
    size = z.abs()
    active, along = size + b > 0, (z.conj() * g).real
    assert active.any()
    assert not active.all()
    assert_close(g_z, active * (g * (1 + b / size) - b * z * along / size**3), **tolerance.ROUNDING)
    assert_close(g_b, (active * along / size).sum(0), **tolerance.ROUNDING)


def test_pairs_hold_the_real_parts_first() -> None:
    z = rand(2, 3)
    assert_close(complex_of(pairs_of(z)), z, **tolerance.EXACT)
    assert_close(pairs_of(z)[:, :3], z.real, **tolerance.EXACT)


# --- rotations


@pytest.mark.parametrize(
    ("size", "layers", "ends"),
    [(4, 2, [set(), {0, 3}]), (5, 4, [{4}, {0}, {4}, {0}]), (3, 2, [{2}, {0}]), (2, 2, [set(), {0, 1}])],
)
def test_tunable_layers_join_neighbours_and_leave_the_ends(size: int, layers: int, ends: list[set[int]]) -> None:
    for joined, alone in zip(tunable_pairs(size, layers), ends, strict=True):
        assert all(j == i + 1 for i, j in joined)
        units = [i for pair in joined for i in pair]
        assert sorted([*units, *alone]) == list(range(size))


@pytest.mark.parametrize("size", [2, 4, 16])
def test_a_butterfly_joins_every_unit_with_every_other(size: int) -> None:
    layers = butterfly_pairs(size)
    assert 2 ** len(layers) == size
    assert all(sorted(i for pair in joined for i in pair) == list(range(size)) for joined in layers)
    partner, slot = rotation_layout(layers, size)
    count = size // 2 * len(layers)
    W = rotate(torch.eye(size).double(), rotation_factors(torch.rand(count).double() + 0.2, None, slot), partner)
    assert (W != 0).all()


@pytest.mark.parametrize("real", [False, True])
def test_rotations_are_the_product_of_their_matrices(real: bool) -> None:
    pairs = tunable_pairs(5, 4)
    count = sum(map(len, pairs))
    theta, phi = torch.randn(count).double(), None if real else torch.randn(count).double()
    partner, slot = rotation_layout(pairs, 5)
    factors = rotation_factors(theta, phi, slot)
    W, p = torch.eye(5, dtype=factors.dtype), 0
    for joined in pairs:
        for i, j in joined:
            turn = 1 if phi is None else torch.exp(1j * phi[p])
            Omega = torch.eye(5, dtype=factors.dtype)
            Omega[i, i], Omega[i, j] = theta[p].cos(), -turn * theta[p].sin()
            Omega[j, i], Omega[j, j] = theta[p].sin(), turn * theta[p].cos()
            W, p = Omega @ W, p + 1
    h = torch.randn(3, 5, dtype=factors.dtype)
    assert_close(rotate(h, factors, partner), h @ W.mT, **tolerance.ROUNDING)
    assert_close(rotate_back(h, factors, partner), h @ W.conj(), **tolerance.ROUNDING)


def test_gradients_of_rotations_are_those_of_finite_differences() -> None:
    partner, slot = rotation_layout(tunable_pairs(3, 2), 3)

    def run(h: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
        return rotate(h, rotation_factors(theta, phi, slot), partner)

    angles = [torch.randn(2).double().requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(run, (rand(2, 3).requires_grad_(), *angles))


# --- skew matrices


def test_skew_from_reads_the_upper_triangle_row_by_row() -> None:
    A = det((4, 4), 0.2, 1)
    upper = A[tuple(torch.triu_indices(4, 4, 1))]
    assert_close(skew_from(upper, 4), A.triu(1) - A.triu(1).mT, **tolerance.EXACT)
    assert skew_from(torch.empty(0), 1).tolist() == [[0]]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("init", ["henaff", "cayley"])
def test_a_block_start_is_block_diagonal_with_its_range(init: str, n: int) -> None:
    A = skew_from(block_angles(n, init, torch.empty(0).double()), n)
    s = A.diagonal(1)[::2]
    low, high = (-torch.pi, torch.pi) if init == "henaff" else (-1.0, 0.0)
    assert ((s >= low) & (s <= high)).all()
    assert torch.count_nonzero(A) == 2 * (n // 2)
    assert torch.count_nonzero(s) == n // 2


def test_the_cayley_start_turns_by_angles_that_are_uniform() -> None:
    n = 2000
    A = block_angles(n, "cayley", torch.empty(0).double())
    s = A[A != 0]
    angles = torch.linspace(0, torch.pi / 2, n // 2 + 1).double()[1:]
    # Kolmogorov's distance: 1.95 / sqrt(1000) has probability 1e-3
    assert ((-2 * s.atan()).sort().values - angles).abs().max() < 0.062 * torch.pi / 2
    # a sixth of a right angle by hand: -sqrt((1 - cos u) / (1 + cos u)) = -tan(u / 2)
    u = torch.linspace(0.1, 1.5, 7).double()
    assert_close(((1 - u.cos()) / (1 + u.cos())).sqrt(), (u / 2).tan(), **tolerance.ROUNDING)


def test_the_cayley_transform_of_nothing_is_its_signs() -> None:
    D = double([1, -1, 1])
    assert_close(scaled_cayley(torch.zeros(3, 3).double(), D), D.diag(), **tolerance.EXACT)
