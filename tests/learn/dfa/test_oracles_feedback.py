"""Oracles 8, 9 and 10 of the spec sheet dfa.md: what carries errors: convolutions, sparse matrices, signs."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.sheet import SHEET, F, backpropagated, degrees, gradients, model_of, numbers, with_feedback
from tests.tolerance import decimals
from torch import Tensor
from torch.nn.functional import conv2d
from torch.testing import assert_close

from pendula import Model, Node
from pendula.learn.dfa import DFA, FeedbackSpec
from pendula.learn.dfa.store import Feedback
from pendula.tasks.base import Batch


def carried(kernel: Tensor, error: Tensor, like: Tensor, distance: int, groups: int = 1) -> Tensor:
    feedback = Feedback(FeedbackSpec(), groups)
    feedback.weights["layer0"] = kernel
    return feedback.carry("layer0", error, like, distance)


def test_oracle_8_dilated_grouped_convolution_of_an_error() -> None:
    E = F(61, (1, 4, 5, 5))
    out = carried(F(62, (4, 2, 3, 3), 0.5), E, E, distance=2, groups=2)
    assert out.shape == (1, 4, 5, 5)
    picked = torch.stack((out.sum(), out.abs().sum(), out[0, 0, 0, 0], out[0, 3, 2, 4], out[0, 1, 4, 1]))
    wanted = numbers(9.245809231058, 57.143729786941, 0.042873153025, 0.415524832751, 0.406494875117)
    assert_close(picked, wanted, **decimals(12))


def test_oracle_8_flipped_transposed_kernel_is_backpropagation_through_a_convolution() -> None:
    W, E = F(64, (4, 3, 3, 3), 0.4), F(61, (1, 4, 5, 5))
    x = torch.zeros(1, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    (true,) = torch.autograd.grad(conv2d(x, W, padding=1), x, E)
    out = carried(W.transpose(0, 1).flip(2, 3), E, x.detach(), distance=1)
    assert_close(out, true, rtol=0.0, atol=1e-14)
    assert_close(torch.stack((out.sum(), out[0, 0, 0, 0])), numbers(-20.336541077214, 0.075791784310), **decimals(12))


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_oracle_8_one_kernel_spans_as_much_as_the_convolutions_that_it_replaces(distance: int) -> None:
    impulse = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    impulse[0, 0, 5, 5] = 1
    seen = carried(torch.ones(1, 1, 3, 3, dtype=torch.float64), impulse, impulse, distance)[0, 0]
    assert int(seen.count_nonzero()) == 9
    stacked = impulse
    for _ in range(distance):
        stacked = conv2d(stacked, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1)
    for axis in (0, 1):
        (places,) = seen.sum(axis).nonzero(as_tuple=True)
        (below,) = stacked[0, 0].sum(axis).nonzero(as_tuple=True)
        assert int(places.max() - places.min()) + 1 == 2 * distance + 1 == len(below)


def images() -> tuple[Model, Batch]:
    """Three convolutions, and a read-out that hands on the module's output as it is."""
    nodes = [Node("Conv", 4, bias=False, physics={"norm": "none", "activation": "tanh"}) for _ in range(3)]
    weights = {f"layers.layer{i}.conv.weight": F(71 + i, (4, 4, 3, 3), 0.25) for i in range(3)}
    weights["readout.weight"] = torch.eye(100, dtype=torch.float64)
    model = model_of(nodes, (4, 100), weights, pool="flatten", image=(5, 5))
    x = F(70, (2, 4, 5, 5)).permute(2, 3, 0, 1).reshape(25, 2, 4)
    return model, Batch(x, F(80, (2, 4, 5, 5)).flatten(1))


def inner(output: Tensor, batch: Batch) -> Tensor:
    """A loss whose gradient at the module's output is y."""
    return (output * batch.y).sum()


@pytest.mark.parametrize("boundary", ["bp", "lower", "dfa"])
def test_oracle_8_module_of_three_convolutions(boundary: str) -> None:
    model, batch = images()
    maps = {"layer0": F(81, (4, 4, 3, 3), 0.25), "layer1": F(82, (4, 4, 3, 3), 0.25)}
    found = gradients(with_feedback(DFA(plan="whole", boundary=boundary, source="module"), maps), model, batch, inner)
    true = backpropagated(model, batch, inner)
    table = {0: (0.895766810340, 26.151852771036, 84.127484), 1: (-1.413125636393, 26.930088431861, 109.966511)}
    for layer, (first, norm, angle) in table.items():
        name = f"layers.layer{layer}.conv.weight"
        assert_close(torch.stack((found[name][0, 0, 0, 0], found[name].norm())), numbers(first, norm), **SHEET)
        assert degrees(found[name], true[name]) == pytest.approx(angle, abs=1e-6)
    norms = [true[f"layers.layer{layer}.conv.weight"].norm() for layer in (0, 1)]
    assert_close(torch.stack(norms), numbers(22.795754512891, 23.092763635980), **SHEET)
    top = "layers.layer2.conv.weight"
    assert_close(found[top], true[top], rtol=1e-12, atol=1e-14)


def test_oracle_9_structured_pattern() -> None:
    B = FeedbackSpec(sparsity=0.5, pattern="structured").matrix("layer0", 6, 4)
    assert [row.nonzero().flatten().tolist() for row in B] == [[0, 1], [2, 3]] * 3
    assert int(torch.linalg.matrix_rank(B)) == 4


def test_oracle_9_products_and_angles() -> None:
    pattern = FeedbackSpec(sparsity=0.5, pattern="structured").matrix("layer0", 6, 4) != 0
    dense, e = F(131, (6, 4)), F(132, (4,))
    sparse = dense * 2**0.5 * pattern
    assert_close(e, numbers(0.0530835871, 0.7727157676, 0.9201581108, -0.1805207715), **decimals(10))
    by = {}
    for name, B in {"sparse": sparse, "dense": dense, "signs": dense.sign()}.items():
        by[name] = carried(B, e.unsqueeze(0), torch.zeros(1, 6, dtype=torch.float64), 1)[0]
    said = numbers(-0.1883748517, 1.4969426197, -0.1607196553, 0.0615989558, -1.1093380309, 0.9965324493)
    assert_close(by["sparse"], said, **decimals(10))
    said = numbers(0.4956372657, 0.6638569246, 0.1576336634, -0.65370647, -1.1852437777, 1.4594351155)
    assert_close(by["dense"], said, **decimals(10))
    assert degrees(by["dense"], by["sparse"]) == pytest.approx(38.434254, abs=1e-6)
    assert degrees(by["dense"], by["signs"]) == pytest.approx(29.534161, abs=1e-6)


E10 = numbers(1, -2, 0.5, 3)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize(("kind", "limit"), [("uniform", 3**0.5 / 2), ("normal", (2 / torch.pi) ** 0.5)])
def test_oracle_10_what_signs_lose(kind: str, limit: float) -> None:
    B = FeedbackSpec(kind=kind).matrix("layer0", 200_000, 4)
    assert cosine(B @ E10, B.sign() @ E10) == pytest.approx(limit, abs=0.005)


@pytest.mark.parametrize("pattern", ["structured", "random"])
def test_oracle_10_what_sparsity_loses_and_keeps(pattern: str) -> None:
    # the same seed draws the same weights, of which half stay, larger by sqrt(2); pairs of columns are fixed by the
    # pattern, so the error is a random one too
    dense = FeedbackSpec().matrix("layer0", 200_000, 4)
    sparse = FeedbackSpec(sparsity=0.5, pattern=pattern).matrix("layer0", 200_000, 4)
    assert cosine(dense @ E10, sparse @ E10) == pytest.approx(0.5**0.5, abs=0.005)
    assert float((sparse @ E10).square().sum() / (dense @ E10).square().sum()) == pytest.approx(1, abs=0.005)
